"""The vertebrae of a training manifest, cut out by the engine that runs cohorts."""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import locked
from ..model.profile import Geometry
from ..plain_data import first_line
from ..training.manifest import Manifest, ManifestRow
from ..training.prepare import PreparedRow, make_shard, set_aside, shard_groups
from .case_run import CaseRecord, CaseStatus, NoNetwork
from .pool import CaseEnded, CohortEvent, PoolLimits, RunControl, run_tasks


@dataclass(frozen=True)
class ShardSettings(NoNetwork):
    """What all shards share."""

    geometry: Geometry


@dataclass(frozen=True)
class ShardRecord(CaseRecord):
    """What became of an image; ``outcomes`` are its rows, without their voxels."""

    outcomes: tuple[PreparedRow, ...] = ()


@dataclass(frozen=True)
class ShardTask:
    """The rows of one image, to be cut out into ``shard``."""

    shard: Path
    rows: tuple[ManifestRow, ...] = field(repr=False)
    settings: ShardSettings
    threads: int = 1

    @property
    def folder(self) -> Path:
        """Return the folder that is written to."""
        return self.shard.parent

    def with_threads(self, threads: int) -> ShardTask:
        """Return the task for a worker of so many threads."""
        return replace(self, threads=threads)

    def absolute(self) -> ShardTask:
        """Return the task with paths that do not depend on the working directory."""
        rows = [
            replace(row, image=row.image.absolute(), mask=row.mask.absolute()) for row in self.rows
        ]
        return replace(self, shard=self.shard.absolute(), rows=tuple(rows))

    def run(self, ready: Any) -> ShardRecord:
        """Cut out the rows; whatever goes wrong is told of each of them."""
        began, trace = time.monotonic(), ""
        try:
            outcomes = make_shard(self.shard, self.rows, self.settings.geometry)
        except UserError as error:
            return self.lost(CaseStatus.REFUSED, str(error), time.monotonic() - began)
        except Exception as error:
            reason, trace = f"{type(error).__name__}: {first_line(error)}", traceback.format_exc()
            lost = self.lost(CaseStatus.FAILED, reason, time.monotonic() - began)
            return replace(lost, traceback=trace)
        light = tuple(replace(outcome, crop=None) for outcome in outcomes)
        seconds = round(time.monotonic() - began, 2)
        image = str(self.rows[0].image)
        return ShardRecord(image, CaseStatus.DONE, seconds=seconds, outcomes=light)

    def lost(self, status: CaseStatus, reason: str, seconds: float) -> ShardRecord:
        """Return the record of an image that nothing came of: no row of it is usable."""
        # What files held before, if they have changed since, is not to be learned from.
        said = ""
        with suppress(OSError):
            said = set_aside(self.shard, len(self.rows))
        outcomes = tuple(PreparedRow(row, f"image: {reason}{said}") for row in self.rows)
        image = str(self.rows[0].image)
        return ShardRecord(image, status, reason, seconds=round(seconds, 2), outcomes=outcomes)


def write_shards_by_engine(
    limits: PoolLimits,
    manifest: Manifest,
    geometry: Geometry,
    out: Path,
    tell: Callable[[int, int, Sequence[PreparedRow]], None],
    should_stop: Callable[[], bool],
) -> int:
    """As ``training.prepare.write_shards``, by worker processes or a Dask scheduler.

    An image whose process dies, or that takes too long, is left out with the reason; shards have
    the same bytes.  Raises InputError as that does, and where no scheduler answers.
    """
    groups = shard_groups(manifest, out)
    settings = ShardSettings(geometry)
    tasks = deque(ShardTask(shard, tuple(rows), settings) for shard, rows in groups.items())
    total, ended = len(groups), 0

    def heard(event: CohortEvent) -> None:
        nonlocal ended
        if isinstance(event, CaseEnded) and isinstance(event.record, ShardRecord):
            ended += 1
            tell(ended, total, event.record.outcomes)

    with locked(out):
        run_tasks(tasks, RunControl(limits, heard, should_stop))
    if ended < total:
        raise KeyboardInterrupt
    return sum(shard.exists() for shard in groups)
