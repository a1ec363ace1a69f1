"""Damaged files of every kind that the project reads: each is read, or refused in one line.

    python Testing/fuzz.py 100000 [--seed N] [--keep FOLDER] [--report FILE.json]

Small valid files are damaged at random, a few thousand in a child process at a time, whose memory
and time are limited; what it was reading when it crashed or hung is reported.  Hypothesis chooses
the damages.  ``Testing/repository/test_fuzz.py`` runs a few hundred of these cases.
``--report`` adds what was run to a JSON file, and writes the table of all runs in it beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
for folder in ("HideSeekSeg", "Testing", "Testing/imaging"):
    if str(ROOT / folder) not in sys.path:
        sys.path.insert(0, str(ROOT / folder))

IN_CHILD = 5_000  # cases
SECONDS = 10  # of processor time that a case may take
SILENCE = 300  # seconds without a sign of life, after which a child is killed
MEMORY = 3 << 30  # bytes that a child may take beside its libraries
LONGEST_LINE = 2_000
MOST_BYTES = 1 << 22  # of a damaged file

Read = Callable[[Path], object]


@dataclass(frozen=True)
class Kind:
    """A kind of file: ``make`` writes a valid one, ``read`` reads it or raises UserError.

    ``inside`` names the file to damage where ``make`` writes a folder.
    """

    name: str
    make: Callable[[Path], None]
    read: Read
    inside: str = ""


def kinds() -> list[Kind]:
    """All kinds of files; imports what reads them."""
    import fuzz_kinds

    return fuzz_kinds.KINDS


# ---- damages

NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 127, 128, 255, 256, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1),
    *(1e12, -1e12, 1e308, 1e-308, float("nan"), float("inf"), 0.5),
)
WORDS: tuple[bytes, ...] = (
    *(b"", b"-1", b"0", b"1e12", b"99999999999999999999", b"nan", b"inf", b"1e400", b"0x10"),
    *(b"\x1b[2J", b"\n", b"\0", b"../../etc/passwd", b"/dev/zero", b"http://[", b"%s%n", b"'\""),
    *(b"\xff\xfe", "骨".encode(), b"A" * 5000, b"{" * 300, b"NaN", b"null", b"True"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, "", "x", "\x1b[2J", [], {}, [[]], {"a": 1}, "L1", "骨", "\ud800", [1, 2, 3]),
    *("A" * 5000, -0.0, *NUMBERS, 10**400, [0] * 1000, [None], ["x"], {"": None}),
)
STEPS = (
    *("flip", "byte", "number", "word", "text number", "cut", "drop", "repeat", "swap", "append"),
    *("value", "value", "value", "key", "missing"),
)


def damaged(content: bytes, steps: list[tuple[str, float, float, int]]) -> bytes:
    """Return what a list of damages (what, where, how much, which) makes of a file."""
    for what, where, share, which in steps:
        at = int(where * len(content))
        end = min(len(content), at + 1 + int(share**4 * len(content)))
        if what in ("value", "key", "missing"):
            content = _damaged_json(content, what, where, which)
        elif what == "text number":
            content = _with_word(content, where, WORDS[which % len(WORDS)])
        else:
            content = _DAMAGES[what](content, at, end, which)
    return content[:MOST_BYTES]


Damage = Callable[[bytes, int, int, int], bytes]
# Of a content, from a place to another, and a number that chooses.
_DAMAGES: dict[str, Damage] = {
    "flip": lambda c, at, end, n: c[:at] + _flipped(c[at : at + 1], n) + c[at + 1 :],
    "byte": lambda c, at, end, n: c[:at] + bytes([n % 256]) + c[at + 1 :],
    "number": lambda c, at, end, n: c[:at] + _packed(n) + c[at + len(_packed(n)) :],
    "word": lambda c, at, end, n: c[:at] + WORDS[n % len(WORDS)] + c[at:],
    "cut": lambda c, at, end, n: c[:at],
    "drop": lambda c, at, end, n: c[:at] + c[end:],
    "repeat": lambda c, at, end, n: c[:end] + c[at:end] * (1 + n % 3) + c[end:],
    "swap": lambda c, at, end, n: c[end:] + c[:end],
    "append": lambda c, at, end, n: c + c[at:end] + WORDS[n % len(WORDS)],
}


def _flipped(byte: bytes, which: int) -> bytes:
    return bytes(b ^ (1 << which % 8) for b in byte)


def _packed(which: int) -> bytes:
    """Return a number as a binary header holds one, of either order of bytes."""
    number, order = NUMBERS[which % len(NUMBERS)], "<>"[which // 64 % 2]
    if isinstance(number, float):
        kind = "d" if abs(number) > 1e38 or which // 128 % 2 else "f"
        return struct.pack(order + kind, number)
    bits = (16, 32, 64)[which // 32 % 3]
    return (number % (1 << bits)).to_bytes(bits // 8, "little" if order == "<" else "big")


def _with_word(content: bytes, where: float, word: bytes) -> bytes:
    """Put a word in place of a number in a text."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", content[:20_000]))
    if not found:
        return content
    match = found[int(where * len(found))]
    return content[: match.start()] + word + content[match.end() :]


def _damaged_json(content: bytes, what: str, where: float, which: int) -> bytes:
    """Put another value in place of one in JSON; other files stay as they are."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return content
    places = list(_places(data))
    if not places:
        return json.dumps(VALUES[which % len(VALUES)]).encode()
    holder, key = places[int(where * len(places))]
    if what == "value":
        holder[key] = VALUES[which % len(VALUES)]
    elif what == "missing":
        del holder[key]
    elif isinstance(holder, dict):
        holder[WORDS[which % len(WORDS)].decode("latin-1")] = holder.pop(key)
    with contextlib.suppress(ValueError):
        return json.dumps(data).encode()
    return content


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every value in plain data, as what holds it and its key."""
    for key in (
        list(data)
        if isinstance(data, dict)
        else range(len(data))
        if (isinstance(data, list))
        else ()
    ):
        yield data, key
        yield from _places(data[key])


# ---- a child


@dataclass(frozen=True)
class Failure:
    """A file that was neither read nor refused as it should be."""

    kind: str
    cause: str
    file: str


def fault_of(error: BaseException) -> str:
    """Return what is wrong with a refusal, empty where it is right."""
    from hideseekseg.errors import UserError

    if not isinstance(error, (UserError, MemoryError)):
        return "".join(traceback.format_exception(error))[-2500:]
    text = str(error)
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in text):
        return f"not one plain line: {text!r}"[:2500]
    return f"{len(text)} letters: {text[:200]!r}" if len(text) > LONGEST_LINE else ""


def child(count: int, seed: int, folder: Path) -> None:
    """Read ``count`` damaged files; print a JSON line for every failure, and one at the end."""
    import hypothesis
    from hypothesis import HealthCheck, Phase, strategies

    prepared = {}
    for kind in kinds():
        path = folder / kind.name / (kind.inside or kind.name)
        (folder / kind.name).mkdir()
        kind.make(folder / kind.name)
        kind.read(folder / kind.name if kind.inside else path)
        prepared[kind.name] = (kind, path, path.read_bytes())
    _limit_memory()
    told: Counter[str] = Counter()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)

    def tell(**what: Any) -> None:
        print(json.dumps(what), file=out, flush=True)

    step = strategies.tuples(
        strategies.sampled_from(STEPS),
        strategies.floats(0, 1, exclude_max=True),
        strategies.floats(0, 1),
        strategies.integers(0, 1023),
    )

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(
        strategies.sampled_from(sorted(prepared)), strategies.lists(step, min_size=1, max_size=4)
    )
    def case(name: str, steps: list[tuple[str, float, float, int]]) -> None:
        kind, path, whole = prepared[name]
        path.write_bytes(damaged(whole, steps))
        tell(now=name, file=str(path))
        fault = _read(kind, folder / name if kind.inside else path, told)
        if fault:
            kept = folder / f"failure-{told['read'] + told['refused']}-{path.name}"
            kept.write_bytes(path.read_bytes())
            tell(failure=asdict(Failure(name, fault, str(kept))))
        path.write_bytes(whole)

    case()
    tell(told=told)


def _read(kind: Kind, path: Path, told: Counter[str]) -> str:
    signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        kind.read(path)
        told.update(["read", f"read: {kind.name}"])
    except (Exception, TooLongError) as error:
        told.update(["refused", f"refused: {kind.name}"])
        return fault_of(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return ""


class TooLongError(BaseException):
    """A case took more than ``SECONDS``; no ``except Exception`` makes a refusal of it."""


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TooLongError(f"took more than {SECONDS} s of processor time")


def _limit_memory() -> None:
    import resource

    status = Path("/proc/self/status")
    used = 8 << 30
    if status.exists():
        used = int(re.search(r"VmSize:\s+(\d+)", status.read_text())[1]) * 1024  # type: ignore[index]
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


# ---- the parent


def run(
    count: int, seed: int, keep: Path | None = None, report: Path | None = None
) -> tuple[Counter[str], list[Failure]]:
    """Read ``count`` damaged files in child processes; how they ended, and what failed.

    Each child's part goes into the ``report`` as soon as it has ended.
    """
    told: Counter[str] = Counter()
    failures: list[Failure] = []
    done = 0
    while done < count:
        part = min(IN_CHILD, count - done)
        with tempfile.TemporaryDirectory(prefix="hideseekseg-fuzz-") as folder:
            ended, failed = _run_child(part, seed + done, Path(folder))
            told += ended
            for failure in failed:
                if keep is not None and failure.file and Path(failure.file).exists():
                    keep.mkdir(exist_ok=True)
                    kept = keep / f"{len(failures)}-{Path(failure.file).name}"
                    kept.write_bytes(Path(failure.file).read_bytes())
                failures.append(failure)
        if report is not None:
            record(report, f"{part} {seed + done}", _row(part, seed + done, ended, failed), page)
        done += part
        if count > IN_CHILD:
            print(f"{done} of {count}: {_totals(told)}, {len(failures)} failures", flush=True)
    return told, failures


def _run_child(count: int, seed: int, folder: Path) -> tuple[Counter[str], list[Failure]]:
    words = [sys.executable, __file__, str(count), "--child", str(folder), "--seed", str(seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        now, file, cases, failures = "", "", 0, []
        os.set_blocking(process.stdout.fileno(), False)
        last = time.monotonic()
        rest = b""
        while True:
            data = process.stdout.read()
            if data is None:
                if time.monotonic() - last > SILENCE:
                    process.kill()
                time.sleep(0.01)
                continue
            if not data:
                break
            last = time.monotonic()
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                said = json.loads(line)
                if "now" in said:
                    now, file, cases = said["now"], said["file"], cases + 1
                elif "failure" in said:
                    failures.append(Failure(**said["failure"]))
                elif "told" in said:
                    return Counter(said["told"]), failures
    cause = f"the process ended with {process.returncode} after {cases} cases"
    failures.append(Failure(now, cause, file))
    return Counter({"read or refused": cases}), failures


# ---- the report of all runs

Rows = dict[str, dict[str, Any]]


def record(file: Path, key: str, row: dict[str, Any], write: Callable[[Rows], str]) -> None:
    """Put a run's row into a report (JSON, by key), and the page made of all rows beside it."""
    from hideseekseg.files import atomic, make_folder

    make_folder(file.parent)
    rows: Rows = json.loads(file.read_text("utf-8")) if file.exists() else {}
    rows = dict(sorted({**rows, key: row}.items()))
    for path, text in (
        (file, json.dumps(rows, indent=1) + "\n"),
        (file.with_suffix(".md"), write(rows)),
    ):
        with atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _totals(told: Counter[str]) -> dict[str, int]:
    return {outcome: count for outcome, count in told.items() if ": " not in outcome}


def _row(count: int, seed: int, told: Counter[str], failures: list[Failure]) -> dict[str, Any]:
    kinds = {
        name: [told[f"read: {name}"], told[f"refused: {name}"]]
        for name in sorted(outcome.split(": ")[1] for outcome in told if ": " in outcome)
    }
    causes = [f"{one.kind}: {one.cause.strip().splitlines()[-1][:200]}" for one in failures]
    return {"cases": count, "seed": seed, **_totals(told), "kinds": kinds, "failures": causes}


def page(rows: Rows) -> str:
    """Return the report in Markdown: each run, the sums by kind of file, and every failure."""
    runs = sorted(rows.values(), key=lambda row: int(row["seed"]))
    kinds: dict[str, list[int]] = {}
    for row in runs:
        for name, counts in row["kinds"].items():
            kinds[name] = [a + b for a, b in zip(kinds.get(name, [0, 0]), counts)]
    sums = [sum(row.get(name, 0) for row in runs) for name in ("cases", "read", "refused")]
    failures = [(row["seed"], cause) for row in runs for cause in row["failures"]]
    lines = [
        "# Damaged files",
        "",
        "Written by `python Testing/fuzz.py CASES --seed SEED --report FILE.json`: small files of"
        " every kind, damaged at random, are read in a child process with limits of memory"
        f" ({MEMORY >> 30} GB) and processor time ({SECONDS} s a file). Each is to be read, or"
        " refused in one plain line; anything else is a failure.",
        "",
        "| cases | seed | read | refused | failures |",
        "|---|---|---|---|---|",
        *(
            f"| {row['cases']:,} | {row['seed']} | {row.get('read', 0):,} |"
            f" {row.get('refused', 0):,} | {len(row['failures'])} |"
            for row in runs
        ),
        f"| **{sums[0]:,}** | all | {sums[1]:,} | {sums[2]:,} | {len(failures)} |",
        "",
        "| kind of file | read | refused |",
        "|---|---|---|",
        *(
            f"| {name} | {read:,} | {refused:,} |"
            for name, (read, refused) in sorted(kinds.items())
        ),
        "",
        *(f"- seed {seed}: {cause}" for seed, cause in failures),
    ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--report", type=Path, metavar="FILE.json")
    parser.add_argument("--child", type=Path)
    args = parser.parse_args()
    if args.child is not None:
        child(args.count, args.seed, args.child)
        return 0
    began = time.monotonic()
    told, failures = run(args.count, args.seed, args.keep, args.report)
    for failure in failures:
        print(f"\n{failure.kind}: {failure.cause}")
    seconds = time.monotonic() - began
    print(f"{args.count} cases in {seconds:.0f} s: {_totals(told)}, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
