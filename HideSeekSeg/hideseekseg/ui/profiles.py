"""What a weights folder says of itself, without torch: its tensors are not read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..model.profile import Profile, from_json
from .i18n import _

BUNDLE = Path(__file__).resolve().parents[1] / "bundle"
PROFILE = "profile.json"


def readProfile(folder: Path) -> tuple[Profile, str]:
    """The profile and the weights' hash; raises InputError, naming the file and the cause."""
    path = folder / PROFILE
    try:
        data: dict[str, Any] = json.loads(path.read_text("utf-8"))
        profile = from_json({key: value for key, value in data.items() if key != "files"})
    except OSError as error:
        raise InputError(
            path, _("cannot be read: {reason}").format(reason=error.strerror)
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            path, _("is no profile of weights: {reason}").format(reason=error)
        ) from error
    # As model.weights does, which needs torch: the profile names the tensors by their hashes.
    return profile, hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
