"""Films and sheets of dreams: rows of frames that pass side by side, each under its caption."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from wm_jax.render import caption_font, whole_file
from wm_jax.render.sheets import enlarged
from wm_jax.render.video import side_by_side, write_gif, write_video

SCALE, GIF_SCALE = 4, 2
GIF_STEPS = 200
"""Of a longer film the GIF has the beginning."""
SHOWN = (0, 1, 5, 15, 30, 50, 100, 200, 300)
"""Steps behind the warm-up whose frames a sheet has, as far as there are any."""
_GUTTER, _MARGIN, _GAP = 190, 8, 2
_PAPER, _INK = (255, 255, 255), (70, 74, 82)


@dataclass(frozen=True)
class Row:
    """One panel of a film.

    frames: uint8[T, 64, 64, 3].
    begins: the frame at which dreams begin, if they are not what comes first: before it, M sees the game.
    """

    caption: str
    frames: np.ndarray
    begins: int = 0


def film(rows: Sequence[Row], mp4: Path, gif: Path, fps: float) -> None:
    """Write both, whole or not at all. The last frame of a shorter row stays.

    Args:
      fps: steps in one second of the game.
    """
    steps = max(len(row.frames) for row in rows)
    write_video(mp4, _composed(rows, steps, SCALE), fps)
    write_gif(gif, _composed(rows, min(steps, GIF_STEPS), GIF_SCALE), fps)


def _composed(rows: Sequence[Row], steps: int, scale: int) -> Iterator[np.ndarray]:
    for step in range(steps):
        pictures = [row.frames[min(step, len(row.frames) - 1)] for row in rows]
        seeing = step < max(row.begins for row in rows)
        line = f"step {step}{': M sees the game' if seeing else ''}"
        yield side_by_side(pictures, [row.caption for row in rows], scale, line)


def sheet(rows: Sequence[Row], path: Path, scale: int = 2) -> Path:
    """Write a PNG with some frames of each row, in columns of the same step since dreams begin.

    Args:
      path: written whole or not at all.
    """
    height, width = (length * scale for length in rows[0].frames.shape[1:3])
    shown = [step for step in SHOWN if step < max(len(row.frames) - row.begins for row in rows)]
    across, down = _GUTTER + len(shown) * (width + _GAP), 22 + len(rows) * (height + _GAP)
    image = Image.new("RGB", (across + _MARGIN, down + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(image)
    for column, step in enumerate(shown):
        x = _GUTTER + column * (width + _GAP)
        draw.text((x + width // 2, 11), f"step {step}", fill=_INK, font=caption_font(13), anchor="mm")
        for place, row in enumerate(rows):
            frames = row.frames[row.begins :]
            if step < len(frames):
                y = 22 + place * (height + _GAP)
                image.paste(Image.fromarray(enlarged(frames[step], scale)), (x, y))
    for place, row in enumerate(rows):
        y = 22 + place * (height + _GAP) + height // 2
        draw.text((_GUTTER - 8, y), row.caption, fill=_INK, font=caption_font(13), anchor="rm")
    with whole_file(path) as temporary:
        image.save(temporary, format="PNG", optimize=True)
    return path
