"""What a segment's name or terminology entry says it is, in the languages that people use.

Names come from programs and people: first the words, then how they are put together.  Words are in
lower case and without accents ("wirbelkorper", "vertebre", "lędźwiowy" as "ledzwiowy"); stems stand
for all words that begin with them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from ..findings import from_head_down
from .label_conventions import (
    ALL_BODIES,
    ALTERED_STRUCTURE_CODE,
    BODY_CODE,
    LEVELS,
    OTHER,
    SNOMED,
    VERTEBRA_CODE,
    Meaning,
)

ABBREVIATIONS = {
    **dict.fromkeys(("c", "hw", "hwk"), "C"),
    **dict.fromkeys(("t", "th", "d", "bw", "bwk"), "T"),
    **dict.fromkeys(("l", "lw", "lwk"), "L"),
    **dict.fromkeys(("s", "sw", "swk"), "S"),
    **{"颈": "C", "頸": "C", "胸": "T", "腰": "L", "骶": "S"},
}
"""Of a region, before a number; D is dorsal (Romance languages), BWK and the like are German."""

REGION_STEMS = {
    **dict.fromkeys(("cervic", "zervik", "cervik", "servik", "szyjn", "shein", "шейн"), "C"),
    **dict.fromkeys(("halswirbel", "halswervel", "halskot", "halshvirvel", "nekwervel"), "C"),
    **dict.fromkeys(("kaulanikam", "krcn", "boyun", "颈椎", "頸椎", "頚椎", "경추"), "C"),
    **dict.fromkeys(("thora", "thorak", "torac", "torak", "dorsal", "dorso", "dorsaux"), "T"),
    **dict.fromkeys(("brustwirbel", "borstwervel", "rugwervel", "brostkot", "bröstkot"), "T"),
    **dict.fromkeys(("brysthvirvel", "brystvirvel", "rintanikam", "piersiow", "hrudn"), "T"),
    **dict.fromkeys(("грудн", "胸椎", "흉추"), "T"),
    **dict.fromkeys(("lumba", "lomba", "lombair", "lomber", "lumbal", "bederni"), "L"),
    **dict.fromkeys(("lendenwirbel", "lendenwervel", "landkot", "lendehvirvel"), "L"),
    **dict.fromkeys(("lendevirvel", "laendehvirvel", "lændehvirvel", "lannenikam"), "L"),
    **dict.fromkeys(("ledzwiow", "поясничн", "腰椎", "요추"), "L"),
    **dict.fromkeys(("sacral", "sakral", "sacre", "kreuzbeinwirbel", "krzyzow"), "S"),
    **dict.fromkeys(("sacra", "крестцов", "천추"), "S"),
}
"""What begins like these names a region: English, German, Dutch, French, Spanish, Italian,
Portuguese, Swedish, Norwegian, Danish, Finnish, Polish, Czech, Turkish, Russian, Chinese, Japanese
and Korean."""

NAMED_VERTEBRAE = {"atlas": "C1", "axis": "C2", "epistropheus": "C2"}

VERTEBRA_STEMS = (
    *("vert", "wirbel", "wervel", "spine", "spinal", "vertebr", "vertèbr", "columna", "colonne"),
    *("wirbelsaule", "kota", "ryggkot", "hvirvel", "virvel", "nikama", "kreg", "obratel", "omur"),
    *("позвон", "椎骨", "脊椎", "척추"),
)

BODY_STEMS = (
    *("body", "bodies", "corpus", "corpora", "wirbelkorper", "wirbelkoerper", "korper", "koerper"),
    *("halswirbelkor", "halswirbelkoe", "brustwirbelkor", "brustwirbelkoe", "lendenwirbelkor"),
    *("lendenwirbelkoe", "corps", "cuerpo", "corpo", "lichaam", "wervellichaam", "kotkropp"),
    *("korpus", "trzon", "тело", "椎体"),
)

ORDINALS = {
    1: r"first|one|erste[rsn]?|eins|premiere?|primer[ao]?|prim[ao]|primeir[ao]|eerste",
    2: r"second[aeo]?|two|zweite[rsn]?|zwei|deuxieme|segund[ao]|tweede",
    3: r"third|three|dritte[rsn]?|drei|troisieme|tercer[ao]?|terz[ao]|terceir[ao]|derde",
    4: r"fourth|four|vierte[rsn]?|vier|quatrieme|cuart[ao]|quart[ao]|vierde",
    5: r"fifth|five|f(?:u|ue)nfte[rsn]?|cinquieme|quint[ao]|vijfde",
    6: r"sixth|six|sechste[rsn]?|sixieme|sext[ao]|sest[ao]|zesde",
    7: r"seventh|seven|sieb(?:en)?te[rsn]?|septieme|s[eé]?ptim[ao]|settim[ao]|setim[ao]|zevende",
    8: r"eighth|eight|achte[rsn]?|huitieme|octav[ao]|ottav[ao]|oitav[ao]|achtste",
    9: r"ninth|nine|neunte[rsn]?|neuvieme|noven[ao]|non[ao]|negende",
    10: r"tenth|ten|zehnte[rsn]?|dixieme|decim[ao]|tiende",
    11: r"eleventh|eleven|elfte[rsn]?|onzieme|undecim[ao]|undicesim[ao]|elfde",
    12: r"twelfth|twelve|zw(?:o|oe)lfte[rsn]?|douzieme|duodecim[ao]|dodicesim[ao]|twaalfde",
    13: r"thirteenth|dreizehnte[rsn]?|treizieme",
}

MR_WORDS = frozenset(
    {"w", "wi", "weighted", "map", "mapping", "star", "flair", "tse", "fse", "mri", "mr", "dixon"}
    | {"stir", "relaxation", "gewichtet", "sag", "ax", "cor"}
)

BESIDE_WORDS = frozenset(
    # Short words that are whole: as stems they would match too much.
    {"rib", "ribs", "cord", "csf", "disc", "disk", "discs", "disks", "ivd", "ivds", "cote", "cotes"}
    | {
        "disco",
        "discos",
        "disque",
        "disques",
        "dischi",
        "discus",
        "schijf",
        "root",
        "roots",
        "arch",
    }
    | {
        "arcus",
        "arc",
        "arco",
        "bogen",
        "boog",
        "mets",
        "cage",
        "rod",
        "rods",
        "fat",
        "fett",
        "canal",
    }
    | {"kanal", "kanaal", "nerf", "nerv", "nerve", "nerves", "muscle", "muscles", "facet", "facets"}
    | {"cement", "dens", "ala", "process", "processes", "processus", "proceso", "processo"}
    | {"aorta", "kidney", "liver", "sat", "vat", "imat", "vessel", "vessels", "needle"}
)

BESIDE_STEMS = (
    # Beside a vertebra, or a part of it.
    *("interverteb", "intravert", "zwischenwirbel", "bandscheib", "tussenwervel", "mellankot"),
    *(
        "rippe",
        "costa",
        "costilla",
        "costola",
        "costela",
        "pedicle",
        "pedikel",
        "pedicul",
        "pedunc",
    ),
    *("lamina", "lamelle", "fortsatz", "apofis", "apophys", "spinous", "spinos", "dornfort"),
    *("transvers", "querfort", "articular", "posterior", "endplate", "endplatte", "deckplatte"),
    *("grundplatte", "plateau", "foram", "ligament", "ganglion", "myelon", "moelle", "medula"),
    *("midollo", "ruckenmark", "rueckenmark", "spinalkanal", "wirbelkanal", "canale", "neural"),
    *("subregion", "osteophyt", "muskel", "psoas", "muscol", "muscul"),
    # At a vertebra: lesions and what is put in.
    *("lesion", "lasion", "laesion", "lesao", "lesie", "laesie", "metasta", "tumor", "tumour"),
    *("tumeur", "blastic", "lytic", "osteobl", "osteoly", "lytisch", "blastisch", "hemangiom"),
    *("haemangiom", "hamangiom", "angiom", "cyst", "zyste", "schmorl", "oedem", "edema", "odem"),
    *("implant", "screw", "schraub", "hardware", "metal", "zement", "ciment", "cemento"),
)
"""A level beside one of these is something at that level ("lesion T10", "L1-L2 disc")."""

OTHER_WORDS = frozenset(
    {"skin", "lung", "lungs", "hip", "hips", "vena", "vein", "eye", "air", "table", "couch"}
    | {"bowel", "colon", "heart", "brain", "os", "milz", "niere", "leber", "herz", "lunge", "foie"}
    | {"rate", "rein", "poumon", "higado", "bazo", "rinon", "corazon", "fegato", "milza", "rene"}
    | {"cuore", "polmone", "figado", "baco", "rim", "lever", "nier", "hart", "darm", "magen"}
    | {"maag", "teeth", "tooth", "face", "head", "trunk", "patient", "background", "rest", "other"}
    | {"none", "ignore"}
)

OTHER_STEMS = (
    *("spleen", "kidney", "gallblad", "stomach", "pancrea", "pankrea", "adrenal", "esophag"),
    *("oesophag", "trachea", "thyroid", "duoden", "bladder", "prostat", "sacrum", "sakrum"),
    *("kreuzbein", "coccy", "steissbein", "pulmonary", "brachioceph", "subclav", "carotid"),
    *("atrial", "atrium", "ventricle", "myocard", "portal", "iliac", "iliopsoas", "humerus"),
    *("scapul", "clavic", "femur", "gluteus", "autochthon", "skull", "sternum", "cartilage"),
    *("quadratus", "trapez", "intestin", "rectum", "uterus", "ovar", "lymph", "pelvis", "becken"),
    *("abdomen", "cavity", "mediast", "pericard", "pleura", "subcutan", "visceral", "airway"),
    *("bronch", "mandib", "cerebr", "cerebell", "brainstem", "arter", "venous", "knee", "patella"),
    *("tibia", "fibula", "radius", "ulna", "carpal", "metacarp", "tarsal", "phalan", "tongue"),
    *("parotid", "larynx", "pharyn", "embol", "hepat", "renal", "thymus", "breast", "eyeball"),
    *("zygomat", "hyoid", "nasal", "lobe", "skelet", "torso", "extremit", "auricle", "sinus"),
    *("valve", "deltoid", "pectoralis", "latissimus", "erector", "rectus", "serratus", "teres"),
    *("supraspin", "infraspin", "coracob", "levator", "sartorius", "adductor", "biceps"),
)
"""Names of other structures, for names that hold no level; most as TotalSegmentator has them."""


JOINING_WORDS = frozenset(
    {"to", "through", "thru", "till", "until", "and", "or", "plus", "bis", "und", "oder"}
    | {"et", "ou", "y", "e", "a", "au", "tot", "en", "och", "og", "til", "ja", "do", "ve"}
    | {"и", "до", "по"}
)
"""Between two numbers they, like ``_JOINTS``, make several levels of a name ("L1 to 3")."""

NEGATIONS = frozenset(
    {"not", "no", "non", "without", "except", "excluding", "but", "nicht", "kein", "keine", "ohne"}
    | {"ausser", "pas", "sans", "sauf", "sin", "excepto", "senza", "sem", "niet", "geen", "zonder"}
    | {"ikke", "inte", "utan", "bez", "не", "без"}
)
"""Before a level they say that a segment is not this vertebra ("not L1")."""

_JOINTS = r"(?:\s*(?:[-/\\+&,;~\u2010\u2012-\u2015\u2212\u301c\u3001]|\.{2,}))+\s*"
_UNITS = frozenset({"mm", "cm", "ml", "hu", "d"})  # "T12, 3 mm" and "T12, 3D" are one level
_MOST_LEVELS = 13  # of a region: a larger number counts something else ("L1-2023")
_SPLIT = re.compile(r"(?<=[a-z])(?=[A-Z])")
_ORDINAL_SUFFIX = re.compile(r"(\d)\.?(?:st|nd|rd|th|de|ste|eme|ieme|ere|re|er|e|a|o|ª|º)\b")
_TOKEN = re.compile(r"[^\W\d_]+|\d+")
_NO_NAME = re.compile(r"(segment|label|mask|object|class|value|structure|roi)?\d*")
_ROMAN_NUMERALS = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii", "xiii")
_ROMAN = {numeral: n for n, numeral in enumerate(_ROMAN_NUMERALS, 1)}
# A generic word written together with a region and a number: "vertebral4".
_JOINED = re.compile(r"(?<![^\W\d_])(vertebrae?|vert|wirbel)(c|th|t|d|l|s)(?=\d)")
_CHINESE = {"第": " ", **{"一二三四五六七八九"[n]: f" {n + 1} " for n in range(9)}}
_BY_CODE = {code: level for level, code in SNOMED.items() if code != VERTEBRA_CODE}
# Types that say nothing: any tissue (Slicer's own for a new segment), structure, or bone.
_VAGUE_CODES = {"85756007", "123037004", "91723000", "272673000", "3138006", ""}

NOT_UNDERSTOOD = "name not understood"


def meaning_of_name(name: str) -> Meaning | None:
    """Return the meaning of a name, OTHER if it names something else, None if not understood.

    A name that holds exactly one level is that level, whatever other words it has ("vertebrae_L1",
    "T12 edited", "1. Lendenwirbel"), unless one of them names a structure at that level ("lesion
    T10", "L1-L2 disc") or an MR weighting ("T1_weighted").  A name that is that of a vertebra
    without a usable level ("vertebra 3", "T12/L1", "C8") has none, and ``problem`` says why.
    """
    words, tokens = _words(name), _tokens(name)
    found = _levels_in(tokens)
    is_body = any(_starts(word, BODY_STEMS) for word in words)
    if any(_is_beside(word) for word in words) or (found & {"T1", "T2"} and words & MR_WORDS):
        return OTHER
    if found and all(_of_level(level) == OTHER for level in found):
        return OTHER
    if len(found) > 1:
        return Meaning(None, "vertebra", f"its name contains several levels ({_listed(found)})")
    if found and _is_denied(tokens):
        return Meaning(None, "vertebra", f"its name says that it is not {found.pop()}")
    if found:
        return _of_level(found.pop(), is_body)
    if words & OTHER_WORDS or any(_starts(word, OTHER_STEMS) for word in words):
        return OTHER
    is_vertebra = any(_starts(word, (*VERTEBRA_STEMS, *REGION_STEMS)) for word in words)
    if is_body and (is_vertebra or words == {"corpus"}):
        return ALL_BODIES if not any(token.isdecimal() for token in tokens) else _COUNTED
    if is_body:
        return OTHER
    if count_in(name) is not None:
        return _COUNTED
    return _NO_LEVEL if is_vertebra else None


_COUNTED = Meaning(None, "vertebra", "its name counts vertebrae (vert_N) and does not give a level")
_NO_LEVEL = Meaning(None, "vertebra", "its name does not give a level")


def says_no_level(meaning: Meaning) -> bool:
    """Return whether a name is that of a vertebra and silent about which: an ID may tell."""
    return meaning in (_COUNTED, _NO_LEVEL)


def level_of(text: str) -> str | None:
    """Return the level that a text is as a whole ("Th12", "vertebrae_L1"), else None.

    None is returned for several, for what is doubted ("L1?"), and beside anything else.
    """
    meaning = meaning_of_name(text)
    names = (*ABBREVIATIONS, *NAMED_VERTEBRAE)
    tokens = _tokens(text)
    alone = all(
        _number(token) or token in names or _region(token) or _starts(token, VERTEBRA_STEMS)
        for token in tokens
    )
    plain = re.fullmatch(r"[^\W_][\w .-]*", text.strip()) is not None
    single = sum(_number(token) > 0 for token in tokens) <= 1
    return meaning.level if meaning is not None and alone and plain and single else None


def may_be_vertebra(name: str) -> bool:
    """Return whether a name is not understood as that of something else."""
    return meaning_of_name(name) != OTHER


def count_in(name: str) -> int | None:
    """Return N of a name that only counts vertebrae ("vert_20", "Wirbel 3"), else None."""
    tokens = _tokens(name)
    numbers = [int(token) for token in tokens if token.isdecimal()]
    rest = [token for token in tokens if not token.isdecimal()]
    counted = rest and all(_starts(word, VERTEBRA_STEMS) for word in rest)
    return numbers[0] if counted and len(numbers) == 1 else None


def is_unnamed(name: str) -> bool:
    """Return whether there is no name, or what programs put there for want of one ("label 20")."""
    return bool(_NO_NAME.fullmatch("".join(_TOKEN.findall(name.lower()))))


def meaning_of_entry(entry: str) -> Meaning | None:
    """Return the meaning of Slicer's serialised terminology entry, None when it says nothing.

    The level may be the type itself or, for a type "vertebra" or "vertebral body", its modifier or
    the region; without one the meaning has no level.  A lesion is not a vertebra, wherever it is.
    """
    parts = entry.split("~")
    if len(parts) != 7:
        return None
    category, kind, *places = (_code(parts[n]) for n in (1, 2, 3, 5, 6))
    if category == ALTERED_STRUCTURE_CODE:
        return OTHER
    if kind not in (VERTEBRA_CODE, BODY_CODE, *_BY_CODE):
        return None
    level = next((_BY_CODE[code] for code in (kind, *places) if code in _BY_CODE), None)
    return Meaning(level, "body" if BODY_CODE in (kind, *places) else "vertebra")


def names_other_structure(entry: str) -> bool:
    """Return whether a terminology entry has the code of a structure that is not a vertebra."""
    parts = entry.split("~")
    if len(parts) != 7 or meaning_of_entry(entry) not in (None, OTHER):
        return False
    return _code(parts[2]) not in _VAGUE_CODES


def _of_level(level: str, is_body: bool = False) -> Meaning:
    if level in LEVELS:
        return Meaning(level, "body" if is_body else "vertebra")
    if level[0] == "S" and level[1:] in "2345":
        return OTHER  # of the sacrum, below what has a body of its own
    return Meaning(None, "vertebra", f"{level} is not a level that can be analysed")


def _plain(name: str) -> str:
    """Return a name in lower case without accents, words written together taken apart."""
    parted = _SPLIT.sub(" ", unicodedata.normalize("NFC", name))
    bare = (c for c in unicodedata.normalize("NFKD", parted) if not unicodedata.combining(c))
    plain = unicodedata.normalize("NFC", "".join(bare)).lower().replace("ß", "ss").replace("ł", "l")
    tens = re.sub("十(?=[一二三])", " 1", plain).replace("十", " 10 ")
    counted = re.sub("(?<= 1)[一二三]", lambda m: str("一二三".index(m[0]) + 1), tens)
    return _JOINED.sub(r"\1 \2", "".join(_CHINESE.get(c, c) for c in counted))


def _tokens(name: str) -> list[str]:
    """Return words, numbers and the marks that join one number to the next ("-" of "L1-2")."""
    text = _ORDINAL_SUFFIX.sub(r"\1 ", _plain(name))
    every = [token.strip() for token in re.findall(rf"[^\W\d_]+|\d+|{_JOINTS}", text)]
    between = zip(every, ["", *every], [*every[1:], ""])
    return [
        token
        for token, before, after in between
        if token.isalnum() or (_number(before) and _number(after))
    ]


def _words(name: str) -> set[str]:
    return {token for token in _tokens(name) if token.isalpha()}


def _levels_in(tokens: list[str]) -> set[str]:
    """Return the levels that a name holds; those that do not exist ("L9") too."""
    found = set(_short_levels(tokens))
    found |= {level for stem, level in NAMED_VERTEBRAE.items() if stem in tokens}
    return found or set(_long_levels(tokens))


def _short_levels(tokens: list[str]) -> list[str]:
    """Return levels such as "L1", "Th 12", "LWK1", "12. BWK", "L1/2" (which are two), "Th XII"."""
    found: list[str] = []
    for n, token in enumerate(tokens):
        region = ABBREVIATIONS.get(token)
        if region is None:
            continue
        after = tokens[n + 1] if n + 1 < len(tokens) else ""
        before = tokens[n - 1] if n else ""
        at, number = n + 1, int(after) if after.isdecimal() else _ROMAN.get(after, 0)
        if not number and len(token) == 3 and before.isdecimal():  # never "1 L" or "12 T"
            at, number = n - 1, int(before)
        if not number:
            continue
        found += [f"{region}{one}" for one in (number, *_joined(tokens, at))]
    return found


def _joined(tokens: list[str], at: int) -> list[int]:
    """Return the numbers that marks or words join to the one at ``at`` ("1, 2 und 4", "3.-5.")."""
    return [number for step in (1, -1) for number in _joined_one_way(tokens, at, step)]


def _joined_one_way(tokens: list[str], at: int, step: int) -> Iterator[int]:
    """Yield until a number is none of a level: a copy's ("L1-1"), a version's, a date's or a size.

    "-1" after a level is what programs write behind the name of a copy.
    """
    first = tokens[at]
    while 0 <= at + 2 * step < len(tokens):
        joint, other = tokens[at + step], tokens[at + 2 * step]
        after = tokens[at + 3] if step > 0 and at + 3 < len(tokens) else ""
        number = _number(other)
        is_joint = joint in JOINING_WORDS or not joint.isalnum()
        same_style = other.isdecimal() == first.isdecimal()  # never the "v" of "L1 and v2"
        is_copy = number == _number(first) or (step > 0 and joint == "-" and other == "1")
        padded = other.startswith("0") and not first.startswith("0")
        is_level = 0 < number <= _MOST_LEVELS and same_style and not padded and not is_copy
        if not is_joint or not is_level or after in _UNITS:
            return
        yield number
        at += 2 * step


def _long_levels(tokens: list[str]) -> list[str]:
    """Return levels such as "lumbar 3", "twelfth thoracic vertebra", "1. Lendenwirbel"."""
    regions = [n for n, token in enumerate(tokens) if _region(token)]
    numbers = {n: number for n, token in enumerate(tokens) if (number := _number(token))}
    if not regions or not numbers:
        return []
    if len({_region(tokens[n]) for n in regions}) > 1:
        return [f"{_region(tokens[n])}{number}" for n in regions for number in numbers.values()]
    nearest = min(numbers, key=lambda n: min(abs(n - region) for region in regions))
    region = _region(tokens[regions[0]])
    return [f"{region}{number}" for number in (numbers[nearest], *_joined(tokens, nearest))]


def _is_denied(tokens: list[str]) -> bool:
    """Return whether a level, with no more than "vertebra" before it, follows a negation."""
    for n, token in enumerate(tokens):
        if token in NEGATIONS:
            rest = [t for t in tokens[n + 1 :] if not _starts(t, (*VERTEBRA_STEMS, *BODY_STEMS))]
            word, number = (*rest, "", "")[:2]
            short = word in ABBREVIATIONS and _number(number) > 0
            if short or word in NAMED_VERTEBRAE or _region(word):
                return True
    return False


def _region(word: str) -> str | None:
    """Return the letter of a region's name; "sacralised" and "lumbarized" name none."""
    if re.search(r"(al|ar)i[sz]", word):
        return None
    return next((letter for stem, letter in REGION_STEMS.items() if word.startswith(stem)), None)


def _number(token: str) -> int:
    """Return what a number, an ordinal or a Roman numeral stands for; 0 for any other word."""
    if token.isdecimal():
        return int(token)
    if token in _ROMAN:
        return _ROMAN[token]
    return next((n for n, pattern in ORDINALS.items() if re.fullmatch(pattern, token)), 0)


def _is_beside(word: str) -> bool:
    return word in BESIDE_WORDS or _starts(word, BESIDE_STEMS)


def _starts(word: str, stems: tuple[str, ...]) -> bool:
    return word.startswith(stems)


def _listed(levels: set[str]) -> str:
    return ", ".join(sorted(levels, key=from_head_down))


def _code(triplet: str) -> str:
    """Return the code of a ``scheme^code^meaning`` triplet of SNOMED CT, else empty."""
    scheme, _, rest = triplet.partition("^")
    return rest.partition("^")[0] if scheme == "SCT" else ""
