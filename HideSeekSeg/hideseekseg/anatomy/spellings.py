"""The words that name vertebrae, and what is not one, in the languages that people use.

All in lower case and without accents ("wirbelkorper", "vertebre", "lędźwiowy" as "ledzwiowy").
Stems stand for all words that begin with them.
"""

from __future__ import annotations

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
