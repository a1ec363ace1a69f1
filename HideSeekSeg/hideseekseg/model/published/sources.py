"""Where the authors of the method publish their weights."""

from __future__ import annotations

from dataclasses import dataclass

CODE = "https://github.com/matanat/hide_and_seek"
HUB = "https://huggingface.co/matanatad/dae_verts"
# The two pickles are part of the authors' code; this is its commit of the paper.
COMMIT = "8b8c647c4d1434c94df696a405456902d741dbf2"
PICKLES = f"https://raw.githubusercontent.com/matanat/hide_and_seek/{COMMIT}/checkpoints"


@dataclass(frozen=True)
class Source:
    """A file to fetch, and the fewest and most bytes that it can have.

    Exact sizes and hashes were not to be had when this was written: hence bounds, which keep out an
    error page as well as an endless stream.
    """

    name: str
    address: str
    least: int
    most: int


CHECKPOINT = Source(
    # The averaged weights alone are 363 MB; beside them stand the raw ones and the optimiser's.
    "last.ckpt",
    f"{HUB}/resolve/main/last.ckpt",
    363_000_000,
    4_000_000_000,
)
CLASSIFIER = Source("classifier_lr.pkl", f"{PICKLES}/classifier_lr.pkl", 2_000, 100_000)
SCALER = Source("scaler.pkl", f"{PICKLES}/scaler.pkl", 4_000, 100_000)
PUBLISHED = (CHECKPOINT, CLASSIFIER, SCALER)
