"""The subcommand ``app``: the review in a browser."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from .arguments import DEVICES, OK, WEIGHTS_HELP, Command, count, port, say, share

MISSING = (
    "needs trame-slicer, which is not installed here: `make app` sets it up, or"
    " pip install 'hideseekseg[app]'"
)


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("ct", type=Path, nargs="?", metavar="CT", help="CT, DICOM folder, or a saved review.mrb")
    add("segmentation", type=Path, nargs="?", metavar="SEGMENTATION", help="of its vertebrae")
    add("--labels", default="names", metavar="NAME|FILE", help="as of `segment`")
    add("--out", type=Path, default=Path("hideseekseg-results"), metavar="DIR")
    add("--port", type=port, default=0, metavar="N", help="0 (default): any free port")
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: this computer only); nothing is encrypted",
    )
    add("--no-browser", action="store_true", help="print the address only")
    add("--upload-mb", type=count, default=2048, metavar="N", help="upload limit in MB")
    add("--device", default="auto", choices=DEVICES)
    add("--threshold", type=share, metavar="X", help="initial threshold (0 to 1)")
    add("--weights", type=Path, metavar="DIR", help=WEIGHTS_HELP)
    add("--all-slices", action="store_true", help="also slices unlike those of the training")
    parser.set_defaults(refuse=parser.error)


def _run(args: argparse.Namespace) -> int:
    from ..errors import InputError

    if args.ct is not None and args.segmentation is None and args.ct.suffix != ".mrb":
        args.refuse("a CT needs its SEGMENTATION")
    importlib.import_module("..web", __package__)
    if importlib.util.find_spec("trame_slicer") is None:
        raise InputError("app", MISSING)
    from ..web.run_view import RunSettings
    from ..web.server import Address, serve
    from ..web.session import Start

    start = Start(args.ct, args.segmentation, args.labels, args.out)
    settings = RunSettings(args.device, args.weights, args.threshold, args.all_slices)
    address = Address(args.host, args.port)
    serve(start, settings, address, args.upload_mb, not args.no_browser, say)
    return OK


COMMANDS = (Command("app", "review in a browser on this computer", _arguments, _run),)
