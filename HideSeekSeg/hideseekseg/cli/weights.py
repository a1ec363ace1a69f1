"""The subcommands for the authors' published weights: download and import."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .arguments import FAILED, OK, Command

WEIGHTS = "weights"


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="last.ckpt", help="the autoencoder")
    add("classifier", type=Path, metavar="classifier_lr.pkl", help="the logistic regression")
    add("scaler", type=Path, metavar="scaler.pkl", help="the standard scaler")
    add("--out", type=Path, required=True, metavar="DIR", help="new folder for the weights")
    add("--licence", metavar="TEXT", help="the licence under which you obtained the files")


def _import(args: argparse.Namespace) -> int:
    _write_weights((args.checkpoint, args.classifier, args.scaler), args.out, args.licence)
    return OK


def _write_weights(files: tuple[Path, Path, Path], out: Path, licence: str | None) -> None:
    from ..model.published.importer import LICENCE, Published, import_published

    print(f"hash {import_published(Published(*files), out, licence or LICENCE)}")
    print(f"use them: hideseekseg segment CT SEGMENTATION --out DIR --weights {out}")


def _download_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder for files and weights")
    add("--yes", action="store_true", help="download without asking")
    add("--licence", metavar="TEXT", help="the licence under which you obtain the files")


def _download(args: argparse.Namespace) -> int:
    from ..errors import InputError
    from ..model.published.download import PUBLISHED, fetch

    weights = args.out / WEIGHTS
    if weights.exists():
        raise InputError(weights, "is there already; remove it to import the files again")
    if not args.yes and not _agreed(args.out):
        print("nothing was fetched", file=sys.stderr)
        return FAILED
    files = []
    for source in PUBLISHED:
        fetched = fetch(source, args.out, _told(source.name))
        same = ", as remembered" if fetched.known else ""
        print(f"{fetched.path}: {fetched.bytes} bytes, SHA-256 {fetched.sha256}{same}", flush=True)
        files.append(fetched.path)
    _write_weights((files[0], files[1], files[2]), weights, args.licence)
    return OK


def _agreed(folder: Path) -> bool:
    """Show what would be fetched from where, and ask."""
    from ..model.published.download import CODE, HUB, PUBLISHED

    missing = [source for source in PUBLISHED if not (folder / source.name).exists()]
    if not missing:
        return True
    print(f"To be fetched to {folder}:")
    for source in missing:
        print(f"  {source.name} ({_size(source.least)} to {_size(source.most)}): {source.address}")
    print(f"They are their authors' work; for the terms of use see {HUB} and {CODE}.")
    try:
        return input("Fetch them? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:  # nobody is there to answer
        print()
        return False


def _told(name: str) -> Callable[[int, int], None]:
    """Return what prints, every five seconds, how much of a file is downloaded."""
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= 5:
            last = time.monotonic()
            print(f"{name}: {_size(done)} of {_size(total)}", file=sys.stderr, flush=True)

    return tell


def _size(count: int) -> str:
    return f"{count / 1e6:.0f} MB" if count >= 1_000_000 else f"{count / 1e3:.0f} kB"


COMMANDS = (
    Command(
        "import-published",
        "convert the authors' published weights; runs nothing in their files",
        _import_arguments,
        _import,
    ),
    Command(
        "download-published",
        "download the authors' published weights and import them; asks first",
        _download_arguments,
        _download,
    ),
)
