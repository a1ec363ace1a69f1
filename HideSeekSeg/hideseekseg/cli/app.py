"""The subcommand ``app``: the review in a browser."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from ..model.profile import SCHEDULES
from .arguments import DEVICES, OK, WEIGHTS_HELP, Command, count, port, say, share, threads
from .segment import conventions

if TYPE_CHECKING:
    from ..imaging.segmentation import Segmentation
    from ..imaging.volume import Volume

MISSING = (
    "needs trame-slicer, which is not installed here: `make app` sets it up, or"
    " pip install 'hideseekseg[app]'"
)
_CT_HELP = "CT, DICOM folder, a saved review.mrb, or a cohort's folder of results"


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("ct", type=Path, nargs="?", metavar="CT", help=_CT_HELP)
    add("segmentation", type=Path, nargs="?", metavar="SEGMENTATION", help="of its vertebrae")
    add("--cohort", type=Path, metavar="DIR", help="read the cases of a cohort's folder one by one")
    add(
        "--reader",
        default="",
        metavar="NAME",
        help="name of the reader of a cohort; each reader has separate reviews",
    )
    add("--labels", default="names", metavar="NAME|FILE", help="as of `segment`")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for the results of CT (default: one per scan, in hideseekseg-results)",
    )
    add("--series", default="", metavar="UID|N", help="as of `segment`")
    add("--patient-names", action="store_true", help="as of `segment`")
    add("--port", type=port, default=0, metavar="N", help="0 (default): any free port")
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: this computer only); nothing is encrypted",
    )
    add("--no-browser", action="store_true", help="print the address only")
    add("--upload-mb", type=count, default=2048, metavar="N", help="upload limit in MB")
    add("--device", default="auto", choices=DEVICES, help="where to compute")
    add("--threshold", type=share, metavar="X", help="initial threshold (0 to 1)")
    add("--weights", type=Path, metavar="DIR", help=WEIGHTS_HELP)
    add("--all-slices", action="store_true", help="also slices unlike those of the training")
    add("--threads", type=threads, metavar="N", help="as of `segment`")
    add("--schedule", choices=SCHEDULES, help="as of `segment`")
    add("--accept-orientation", action="store_true", help="as of `segment`")
    parser.epilog = conventions()
    parser.set_defaults(refuse=parser.error)


def _run(args: argparse.Namespace) -> int:
    from ..errors import InputError

    importlib.import_module("..web", __package__)
    if args.ct is not None and args.segmentation is None:
        from ..cohort.case_run import INDEX

        if (args.ct / INDEX).is_file():
            args.cohort, args.ct = args.cohort or args.ct, None
    _refuse(args)
    if importlib.util.find_spec("trame_slicer") is None:
        raise InputError("app", MISSING)
    from ..web.page import RunSettings
    from ..web.server import Address, serve
    from ..web.session import Start

    work = None
    if args.cohort is not None:
        from ..cohort.readings import WorkList

        work = WorkList(args.cohort, args.reader)
    start = Start(
        *(args.ct, args.segmentation, args.labels, args.out, args.series, args.patient_names),
        read=_read(args),
        work=work,
    )
    options = [] if args.threads is None else ["--threads", str(args.threads)]
    options += ["--schedule", args.schedule] if args.schedule else []
    options += ["--accept-orientation"] if args.accept_orientation else []
    chosen = (args.device, args.weights, args.threshold, args.all_slices, tuple(options))
    settings = RunSettings(*chosen)
    address = Address(args.host, args.port)
    serve(start, settings, address, args.upload_mb, not args.no_browser, say)
    return OK


def _refuse(args: argparse.Namespace) -> None:
    """Refuse words that do not go together."""
    if args.cohort is not None and (args.ct is not None or not args.reader):
        args.refuse("the cases of a cohort need --reader NAME, and no CT")
    if args.cohort is None and args.reader:
        args.refuse("--reader is for the cases of a cohort")
    if args.ct is not None and args.segmentation is None and args.ct.suffix.lower() != ".mrb":
        args.refuse("a CT needs its SEGMENTATION")
    if args.segmentation is None:  # a scene, a cohort and the example say it themselves
        given = {"--labels": args.labels != "names", "--series": bool(args.series)}
        for option in (name for name, said in given.items() if said):
            args.refuse(f"{option} is for a CT with its SEGMENTATION")
    if args.cohort is not None:  # its results are there, and read as they are
        _refuse_for_cohort(args)


def _refuse_for_cohort(args: argparse.Namespace) -> None:
    """Refuse options of a run, or of a scan, which would change nothing of a cohort's cases."""
    usual = {"device": "auto", "all_slices": False, "accept_orientation": False}
    usual |= dict.fromkeys(("weights", "threshold", "threads", "schedule"))
    for name, value in usual.items():
        if getattr(args, name) != value:
            option = f"--{name.replace('_', '-')}"
            args.refuse(f"{option} is for a run: the cases of a cohort are run by `cohort`")
    if args.out is not None:
        args.refuse("--out is for the results of a CT: reviews of a cohort are kept in its folder")
    if args.patient_names:
        args.refuse("--patient-names is for a CT: the cases of a cohort have none")


def _read(args: argparse.Namespace) -> tuple[Volume, Segmentation] | None:
    """Read what is to be shown; refuse what `segment` would refuse, before a page is opened.

    None for a saved scene and for the example.  Raises UserError.
    """
    from ..anatomy.alignment import settled
    from ..anatomy.labelling import assign
    from ..anatomy.segment_names import may_be_vertebra
    from ..errors import InputError, SegmentationError
    from ..imaging.reading import read_ct, read_segmentation
    from ..imaging.volume import overlap
    from ..model.profile import BUNDLE, read_profile

    read_profile(args.weights or BUNDLE)
    if args.device != "auto":
        from ..model.weights import choose_device

        choose_device(args.device)
    if args.ct is None:
        return None
    if args.segmentation is None:
        if not args.ct.is_file():
            raise InputError(args.ct, "does not exist")
        return None
    ct = read_ct(args.ct, args.series, args.patient_names, undecided=True)
    segmentation = read_segmentation(args.segmentation, may_be_vertebra, undecided=True)
    labels = None if args.labels == "names" else args.labels
    ct, segmentation, _ = settled(ct, segmentation, None, labels)
    if args.labels != "names":  # without one, levels are set in the page
        assign(segmentation, args.labels)
    if not overlap(ct.grid, segmentation.grid):
        raise SegmentationError(segmentation.source, f"does not overlap with the CT {ct.name}")
    return ct, segmentation


COMMANDS = (Command("app", "review in a browser on this computer", _arguments, _run),)
