"""Findings and pictures as plain data, which is what the page takes."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

from PIL import Image

from ..review.review import Item
from ..ui import texts


def row(item: Item) -> dict[str, Any]:
    return {
        "type": item.type,
        "verdict": item.verdict,
        "score": 0.0 if item.missed else round(item.score, 4),
        "cells": list(texts.cells(item)),
        "tip": f"{item.name}\n{item.comment}" if item.comment else item.name,
    }


def png(picture: Any) -> str:
    """Bytes (H, W, 3) as an address that holds the picture itself."""
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
