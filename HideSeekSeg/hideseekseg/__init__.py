"""Hide-and-Seek Attribution for vertebral metastases in CT (Atad et al., MIDL 2026).

    import hideseekseg

    result = hideseekseg.segment("ct.nii.gz", "vertebrae.nii.gz", labels="totalsegmentator")

Names are imported when they are first used, so that ``import hideseekseg`` loads neither torch nor
SimpleITK nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "BUNDLE": "model.profile",
    "Candidate": "findings",
    "DeviceError": "errors",
    "DownloadError": "errors",
    "Evidence": "findings",
    "Grid": "imaging.volume",
    "InputError": "errors",
    "Model": "model.weights",
    "NotCTError": "errors",
    "Patch": "imaging.volume",
    "Result": "findings",
    "ScheduleError": "errors",
    "SegmentationError": "errors",
    "Segmentation": "imaging.segmentation",
    "Status": "findings",
    "UserError": "errors",
    "VertebraFinding": "findings",
    "Volume": "imaging.volume",
    "WeightsError": "errors",
    "load_model": "model.weights",
    "read_ct": "imaging.reading",
    "read_segmentation": "imaging.reading",
    "segment": "job",
    "write_csv": "output.tables",
    "write_json": "output.tables",
    "write_segmentation": "output.seg_nrrd",
}

if TYPE_CHECKING:
    from .errors import (
        DeviceError,
        DownloadError,
        InputError,
        NotCTError,
        ScheduleError,
        SegmentationError,
        UserError,
        WeightsError,
    )
    from .findings import Candidate, Evidence, Result, Status, VertebraFinding
    from .imaging.reading import read_ct, read_segmentation
    from .imaging.segmentation import Segmentation
    from .imaging.volume import Grid, Patch, Volume
    from .job import segment
    from .model.profile import BUNDLE
    from .model.weights import Model, load_model
    from .output.seg_nrrd import write_segmentation
    from .output.tables import write_csv, write_json

__all__ = [
    "BUNDLE",
    "Candidate",
    "DeviceError",
    "DownloadError",
    "Evidence",
    "Grid",
    "InputError",
    "Model",
    "NotCTError",
    "Patch",
    "Result",
    "ScheduleError",
    "Segmentation",
    "SegmentationError",
    "Status",
    "UserError",
    "VertebraFinding",
    "Volume",
    "WeightsError",
    "__version__",
    "load_model",
    "read_ct",
    "read_segmentation",
    "segment",
    "write_csv",
    "write_json",
    "write_segmentation",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
