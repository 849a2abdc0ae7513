"""What a run leaves for people to look at: reconstruction sheets, videos, plots and the report.

All but `game.py`, which plays one, take NumPy arrays, plain dicts and paths. This file holds what the modules share.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from PIL import ImageFont


@contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Gives a temporary path beside `path`, which becomes `path` at the end, or vanishes after an exception.

    So a reader, or an interrupted run, never meets half a picture, and a failed rewrite keeps the old one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@cache
def caption_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font at `size` pixels, so that captions look the same on a machine without any fonts."""
    return ImageFont.load_default(size)
