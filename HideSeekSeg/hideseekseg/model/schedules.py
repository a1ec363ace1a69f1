"""The schedules that a user may ask for by name, whatever the weights' own is."""

from __future__ import annotations

from dataclasses import replace

from ..errors import ScheduleError
from .profile import SCHEDULES, Schedule, check_schedule
from .weights import Model

# Chosen by `hideseekseg benchmark speed`: the fewest steps whose edits are those of 250 and 100.
MULTISTEP_STEPS = 12


def scheduled(model: Model, name: str) -> Model:
    """Return the same weights with another schedule; their thresholds stay.

    "exact" is the paper's.  "multistep" walks the same paths with a solver that needs few steps,
    and projects nothing: inversion and rendering under one latent undo each other.  "fast" is the
    weights' own, which must have one.  Raises ScheduleError.
    """
    own = model.profile.schedule
    if name == own.name:
        return model
    if name == "exact":
        chosen = Schedule("exact", timesteps=own.timesteps)
    elif name == "multistep":
        chosen = multistep(MULTISTEP_STEPS, own.timesteps)
    elif name in SCHEDULES:
        raise ScheduleError(
            "schedule", f"the weights {model.profile.name!r} have no {name} schedule"
        )
    else:
        raise ScheduleError("schedule", f"unknown: {name!r}; choose {', '.join(SCHEDULES)}")
    try:
        check_schedule(chosen)
    except ValueError as error:
        raise ScheduleError("schedule", str(error)) from error
    return replace(model, profile=replace(model.profile, schedule=chosen))


def multistep(steps: int, timesteps: int, name: str = "multistep") -> Schedule:
    """Return the solver with so many steps either way, without projection."""
    return Schedule(
        name,
        projection="none",
        solver="multistep",
        timesteps=timesteps,
        invert_steps=steps,
        render_steps=steps,
    )
