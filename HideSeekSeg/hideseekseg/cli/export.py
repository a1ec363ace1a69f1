"""The subcommands that take a result further: ``export`` to DICOM."""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import OK, Command

UNREVIEWED = "what the run found, whatever a review in RESULT says of it"


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("result", type=Path, metavar="RESULT", help="folder of results, reviewed or not")
    add("--ct", type=Path, required=True, metavar="DIR", help="the DICOM series that it is of")
    add("--series", default="", metavar="UID|N", help="the series, where the folder has several")
    add("--dicom-seg", type=Path, required=True, metavar="FILE", help="DICOM SEG to write")
    add("--unreviewed", action="store_true", help=UNREVIEWED)


def _export(args: argparse.Namespace) -> int:
    from ..files import atomic
    from ..output.dicom_seg_export import dicom_seg, read_instances, read_source
    from ..output.stored_result import read_result

    stored = read_result(args.result, args.unreviewed)
    ct = read_source(stored, args.ct, args.series)
    instances = read_instances(ct)
    segmentation = dicom_seg(stored, ct, instances)
    with atomic(args.dicom_seg) as temporary:
        segmentation.save_as(temporary)
    print(args.dicom_seg)
    return OK


COMMANDS = (
    Command(
        "export",
        "write the lesions of a result as DICOM, on the instances of the CT series",
        _export_arguments,
        _export,
    ),
)
