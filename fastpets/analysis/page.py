"""Pages of HTML, each one file that loads no other, with their images inside."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from fastpets.data import storage
from fastpets.utils.atomic import write_atomically
from fastpets.utils.figures import NAME_LENGTH

THUMBNAIL_PX = 112
MAX_IMAGES = 400  # inside a page, about 6 kB each; the others are read from their files
LIMITS = {"nameLength": NAME_LENGTH, "perPage": 24}  # passed to the script of a page


def write_page(path: Path, template: str, values: dict[str, Any]) -> Path:
    """Writes the page of a template in this folder, with values that may contain NumPy's types. Returns its path."""
    environment = Environment(
        loader=PackageLoader("fastpets.analysis", "."), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template(template).render(plain(values))
    write_atomically(path, lambda staging: staging.write_text(page, encoding="utf-8"))
    return path


def thumbnail(pixels: np.ndarray) -> str:
    """An image (H, W, 3) uint8 as a data URL, of at most THUMBNAIL_PX pixels a side."""
    image, file = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    image.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def linked(path: str) -> str:
    """The path of an image as a page names it: absolute, so that a browser finds the file."""
    return path if storage.is_remote(path) or "::" in path else str(Path(path).absolute())


def plain(value: Any) -> Any:
    """Converts a value for JSON and UTF-8: Python's numbers, None for NaN and infinity, escaped bytes in strings."""
    if isinstance(value, dict):
        return {plain(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
