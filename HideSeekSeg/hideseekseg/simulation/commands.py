"""The work behind ``hideseekseg simulate`` and ``pack``: files to files, and a contact sheet."""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import locked, make_folder, read_json, require_apart
from ..model.profile import Geometry
from ..output.figures.drawing import TYPE_COLOURS, Outline, Tile
from ..output.figures.overview import show_crops
from ..plain_data import counted
from ..unpacking import read_arrays
from .simulate import BLASTIC, LYTIC, Recipe, simulate
from .source_vertebrae import (
    Source,
    SourceVertebra,
    chosen,
    content_of,
    drawn_vertebrae,
    load_vertebrae,
    names_in,
    pack,
    person,
    read_sources,
    unpack,
)

Say = Callable[[str], None]

MOST_IN_SHARD = 4000  # vertebrae of a set in one shard, which one process draws
IN_PART = 250  # vertebrae in each shard of a larger set
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Simulation:
    """What to draw: patients of some ``splits`` of a sources file, and some drawn from scratch.

    ``data`` is the folder of the scans, or a file of packed vertebrae.  ``without`` names patients
    to leave out.  A set of more than ``MOST_IN_SHARD`` comes in several shards, which so many
    ``workers`` draw side by side.
    """

    sources: Path
    data: Path
    splits: Sequence[str]
    out: Path
    vertebrae: int
    seed: int
    whole: bool
    drawn: int
    unmodified: float = Recipe.unmodified
    workers: int = 1
    without: Sequence[str] = ()


def run_simulate(
    job: Simulation, say: Say, should_stop: Callable[[], bool] = lambda: False
) -> list[Path]:
    """Write shards of simulated slices, their recipes, and a contact sheet to look at.

    Shards that are there already, by the same recipe, are kept: a run that was stopped goes on.
    Raises InputError, also where a shard of another recipe stands in the way and where ``out`` is
    or lies in the folder of a scan, and KeyboardInterrupt once ``should_stop`` says so.
    """
    known = read_sources(job.sources, job.data)
    _require_apart(job.out, known)
    job = replace(job, splits=names_in(job.splits, (source.split for source in known)))
    vertebrae, names = _vertebrae(job, known, say)
    content = content_of(vertebrae)
    if job.drawn:
        vertebrae += drawn_vertebrae(np.random.default_rng(job.seed), job.drawn)
        say(f"{counted(job.drawn, 'vertebra', 'vertebrae')} drawn from scratch")
    if not vertebrae:
        asked = " or ".join(job.splits)
        raise InputError(job.sources, f"leads to no whole vertebra in the split {asked}")
    make_folder(job.out)
    whole = Recipe(
        job.seed,
        job.vertebrae,
        None if job.whole else 12,
        sources=names,
        drawn=job.drawn,
        unmodified=job.unmodified,
        content=content,
    )
    # By the size alone: a seed stands for one set, whoever draws it.
    recipes = [whole] if job.vertebrae <= MOST_IN_SHARD else _parts(whole)
    with locked(job.out):
        return _drawn(job, recipes, vertebrae, say, should_stop)


def _drawn(
    job: Simulation,
    recipes: Sequence[Recipe],
    vertebrae: Sequence[SourceVertebra],
    say: Say,
    should_stop: Callable[[], bool],
) -> list[Path]:
    _refuse_others(job.out, recipes)
    if len(recipes) == 1 < job.workers:
        say(f"up to {MOST_IN_SHARD} vertebrae are one shard, which one process draws")
    kept = [recipe for recipe in recipes if _is_there(job.out, recipe)]
    if kept:
        say(f"{len(kept)} of {len(recipes)} shards are there already")
    missing = [recipe for recipe in recipes if recipe not in kept]
    _draw(missing, vertebrae, job, say, should_stop)
    shards = [job.out / f"{recipe.name}.npz" for recipe in recipes]
    return [*shards, contact_sheet(shards[0], shards[0].with_suffix(".png"))]


def run_pack(sources: Path, data: Path, out: Path, say: Say, splits: Sequence[str] = ()) -> Path:
    """Pack the vertebrae of a sources file, all or those of some splits.

    To simulate where the scans are not, or to observe them as they are.  Raises InputError, also
    where ``out`` lies in the folder of a scan.
    """
    known = read_sources(sources, data)
    _require_apart(out, known)
    vertebrae = _loaded(_of_splits(sources, known, splits) if splits else known, say)
    pack(vertebrae, out)
    say(f"{len(vertebrae)} vertebrae in {out.stat().st_size / 2**20:.1f} MiB")
    return out


def _vertebrae(
    job: Simulation, known: Sequence[Source], say: Say
) -> tuple[list[SourceVertebra], tuple[str, ...]]:
    """Return the real vertebrae of a job and the names of their patients, in the file's order."""
    everybody = [source.patient for source in known]
    without = chosen(job.sources, job.without, everybody, "has no patient {} to leave out")
    sources = [s for s in _of_splits(job.sources, known, job.splits) if s.patient not in without]
    if not sources:
        splits = " or ".join(job.splits)
        raise InputError(job.sources, f"has no patient in the split {splits} but those left out")
    names = tuple(dict.fromkeys(source.patient for source in sources))
    if job.data.suffix != ".npz":
        return _loaded(sources, say), names
    spelled = {person(name): name for name in names}
    packed = [v for v in unpack(job.data) if person(v.patient) in spelled]
    vertebrae = [replace(v, patient=spelled[person(v.patient)]) for v in packed]
    for name in names:
        say(f"{name}: {sum(v.patient == name for v in vertebrae)} vertebrae")
    return vertebrae, names


def _require_apart(out: Path, known: Sequence[Source]) -> None:
    """Refuse an output in the folder of any scan, also of a split that is not asked for."""
    require_apart(
        out, {path for source in known for path in (source.ct, source.segmentation)}, True
    )


def _of_splits(path: Path, known: Sequence[Source], splits: Sequence[str]) -> list[Source]:
    """Return the rows of some splits; raises InputError where there is no row of one of them."""
    wanted = chosen(path, splits, (s.split for s in known), "has no row with the split {}")
    return [source for source in known if source.split in wanted]


def _loaded(sources: Sequence[Any], say: Say) -> list[SourceVertebra]:
    vertebrae: list[SourceVertebra] = []
    for source in sources:
        own = load_vertebrae(source, say)
        say(f"{source.patient}: {len(own)} vertebrae")
        vertebrae += own
    return vertebrae


def _parts(recipe: Recipe) -> list[Recipe]:
    """Split a set into shards, which no number of processes changes."""
    starts = range(0, recipe.vertebrae, IN_PART)
    return [
        replace(recipe, part=n, vertebrae=min(IN_PART, recipe.vertebrae - start))
        for n, start in enumerate(starts)
    ]


def _refuse_others(folder: Path, recipes: Sequence[Recipe]) -> None:
    """Raise InputError where shards of the same seed are there that these recipes do not make."""
    whole = replace(recipes[0], part=None).name
    made = {f"{recipe.name}.npz" for recipe in recipes}
    there = {path.name for path in (folder / f"{whole}.npz", *folder.glob(f"{whole}-*.npz"))}
    for name in sorted(there - made):
        if (folder / name).exists():
            cause = f"contains {name}, which is of another recipe with the same seed"
            raise InputError(folder, f"{cause}: choose another seed or folder")


def _is_there(folder: Path, recipe: Recipe) -> bool:
    """Return whether a shard was written by this very recipe; InputError where by another one."""
    path = folder / f"{recipe.name}.json"
    if not path.exists():
        return False
    written = read_json(path)
    if isinstance(written, dict) and isinstance(geometry := written.get("geometry"), dict):
        # Earlier versions did not write down what they did not know.
        written = {**written, "geometry": {"least_share": Geometry.least_share, **geometry}}
    if written != json.loads(json.dumps(asdict(recipe))):
        cause = "contains another recipe, or one of other vertebrae: choose another seed or folder"
        raise InputError(path, cause)
    return path.with_suffix(".npz").exists()


def _draw(
    recipes: Sequence[Recipe],
    vertebrae: Sequence[SourceVertebra],
    job: Simulation,
    say: Say,
    should_stop: Callable[[], bool],
) -> None:
    """Write the shards of some recipes, with as many processes as the job asks for."""
    total = sum(recipe.vertebrae for recipe in recipes)
    count = _counter(say)
    if job.workers == 1:
        before = 0
        for recipe in recipes:

            def tell(done: int, _: int, before: int = before) -> None:
                if should_stop():
                    raise KeyboardInterrupt
                count(before + done, total)

            simulate(recipe, vertebrae, job.out, tell)
            before += recipe.vertebrae
        return
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    try:
        stop, done = context.Event(), context.Value("q", 0)
    except OSError as error:  # of containers without shared memory, which semaphores lie in
        why = error.strerror or str(error)
        cause = f"processes cannot share memory here (/dev/shm): {why}; --workers 1 does without"
        raise InputError("--workers", cause) from error
    shared = (vertebrae, job.out, stop, done)
    workers = min(job.workers, max(len(recipes), 1))
    try:
        with ProcessPoolExecutor(workers, context, _begin, shared) as pool:
            running = [pool.submit(_work, recipe) for recipe in recipes]
            while wait(running, POLL_SECONDS).not_done:
                count(done.value, total)
                if should_stop():
                    stop.set()
            finished = all(future.result() for future in running)
    except BrokenProcessPool as error:
        cause = (
            "a process that draws was ended from outside: with fewer --workers it needs less memory"
        )
        raise InputError(job.out, cause) from error
    if not finished:
        raise KeyboardInterrupt
    count(total, total)


_shared: tuple[Sequence[SourceVertebra], Path, Any, Any]  # of a worker process


def _begin(vertebrae: Sequence[SourceVertebra], folder: Path, stop: Any, done: Any) -> None:
    """Make a worker ready: the process that started it hears Ctrl-C for all, and may end it."""
    global _shared
    _shared = (vertebrae, folder, stop, done)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _work(recipe: Recipe) -> bool:
    """Write a shard in a worker; whether that came to its end before a stop was asked for."""
    vertebrae, folder, stop, done = _shared

    def tell(number: int, total: int) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        with done.get_lock():
            done.value += 1

    try:
        if stop.is_set():
            return False
        simulate(recipe, vertebrae, folder, tell)
    except KeyboardInterrupt:  # one that left a worker would end it without an answer
        return False
    return True


def _counter(say: Say) -> Callable[[int, int], None]:
    """Say a line at every tenth of the way, with the time left."""
    began, told = time.monotonic(), 0

    def count(done: int, total: int) -> None:
        nonlocal told
        tenth = 10 * done // max(total, 1)
        if tenth == told or done == 0:
            return
        told = tenth
        left = (time.monotonic() - began) / done * (total - done)
        say(f"vertebra {done} of {total}, {left:.0f} s left")

    return count


ILL, WELL, ACROSS = 36, 12, 12
WINDOW_HU = (-200.0, 900.0)


def contact_sheet(shard: Path, path: Path) -> Path:
    """Slices of a shard beside their healthy twins, lesions outlined; evenly spread over it."""
    data = read_arrays(shard)
    ill = np.flatnonzero((data["masks"] & (LYTIC | BLASTIC)).any(axis=(1, 2)))
    well = np.flatnonzero(data["label"] == 0)
    images, twins, masks = (data[key] for key in ("image", "twin", "masks"))
    names = [f"{patient} {level}" for patient, level in zip(data["patient"], data["level"])]
    tiles = []
    for row in (*_spread(ill, ILL), *_spread(well, WELL)):
        outlines = [
            Outline(masks[row] & LYTIC > 0, TYPE_COLOURS["lytic"]),
            Outline(masks[row] & BLASTIC > 0, TYPE_COLOURS["blastic"]),
        ]
        tiles.append(Tile(images[row], outlines, names[row], WINDOW_HU))
        tiles.append(Tile(twins[row], (), "healthy twin", WINDOW_HU))
    show_crops(path, [tiles[start : start + ACROSS] for start in range(0, len(tiles), ACROSS)])
    return path


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    if len(rows) == 0:
        return rows
    return rows[np.unique(np.linspace(0, len(rows) - 1, count).astype(int))]
