"""A sheet of the frames that differ most: Gymnasium's, ours, and what is between them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wm_jax.render import caption_font, whole_file
from wm_jax.render.sheets import enlarged
from wm_jax.tools.fidelity.pictures import NOTICEABLE, WRONG, Album

COLUMNS, SCALE, TIMES = 6, 3, 6
"""Frames in a row, the side of a pixel, and by how much differences are multiplied."""
_LEFT, _MARGIN, _TITLE, _CAPTION, _GAP = 116, 8, 30, 22, 4
_PAPER, _INK = (255, 255, 255), (70, 74, 82)
_ROWS = ("Gymnasium", "ours", f"{TIMES} x difference")


def draw(path: Path | str, album: Album, styles: Sequence[str]) -> Path:
    """Write a PNG with the frames that differ most, of both phases.

    Args:
      album: frames of any size; styles: who drove, one for each picture.
    """
    theirs, ours = album.frames(), album.ours()
    differences = np.abs(ours.astype(np.int16) - theirs)
    phases = {"While the camera comes near": album.zooming, "After the first second": ~album.zooming}
    worst = differences.max(-1)
    order = np.lexsort([-(worst > bar).sum((1, 2)) for bar in (NOTICEABLE, WRONG)])  # by the last one first
    first: dict[tuple[int, float], int] = {}  # all styles begin alike: one picture of each track and time will do
    for i in order.tolist():
        first.setdefault((album.seeds[i], float(album.times[i])), i)
    blocks = []
    for title, chosen in phases.items():
        picked = [i for i in first.values() if chosen[i]][:COLUMNS]
        shown = [[theirs[i], ours[i], np.minimum(TIMES * differences[i], 255).astype(np.uint8)] for i in picked]
        captions = [
            f"{styles[i]}, {album.seeds[i]}, step {round(50 * album.times[i]) - 1}: {differences[i].mean():.2f}"
            for i in picked
        ]
        if picked:
            blocks.append(_block(f"{title}: frames with most pixels off by over {WRONG} levels", shown, captions))
    sheet = Image.fromarray(np.concatenate(blocks))
    with whole_file(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
    return Path(path)


def _block(title: str, shown: Sequence[Sequence[NDArray]], captions: Sequence[str]) -> NDArray[np.uint8]:
    """Columns of three pictures with their captions (driver, seed, step: mean difference in levels)."""
    side = SCALE * shown[0][0].shape[0] + _GAP
    size = (_LEFT + COLUMNS * side + _MARGIN, _TITLE + len(_ROWS) * side + _CAPTION + _MARGIN)
    block = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(block)
    pen.text((_LEFT, _MARGIN), title, fill=_INK, font=caption_font(14))
    for row, name in enumerate(_ROWS):
        pen.text((_LEFT - 8, _TITLE + (row + 0.5) * side), name, fill=_INK, font=caption_font(13), anchor="rm")
        for column, pictures in enumerate(shown):
            block.paste(Image.fromarray(enlarged(pictures[row], SCALE)), (_LEFT + column * side, _TITLE + row * side))
    for column, caption in enumerate(captions):
        pen.text((_LEFT + column * side, _TITLE + len(_ROWS) * side), caption, fill=_INK, font=caption_font(10))
    return np.asarray(block)
