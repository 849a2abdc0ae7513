"""Reconstruction sheets: what V was shown, above what V made of it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from wm_jax.render import caption_font, whole_file

_MARGIN = 8
_GUTTER = 64  # left of the tiles, for the row captions
_TITLE = 22
_SEPARATOR = 2
_PAIR_SEPARATOR = 10
_PAPER = (255, 255, 255)
_INK = (70, 74, 82)
_CAPTIONS = ("real", "decoded")


@dataclass(frozen=True)
class SheetLayout:
    """Where everything lies on a sheet, in pixels."""

    count: int
    columns: int
    tile_width: int
    tile_height: int
    titled: bool

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the sheet."""
        pairs = -(-self.count // self.columns)
        x, y = self.corner(self.columns - 1 + (pairs - 1) * self.columns, 1)
        return x + self.tile_width + _MARGIN, y + self.tile_height + _MARGIN

    def corner(self, index: int, row: int) -> tuple[int, int]:
        """Left and top of frame `index`: its real picture (row 0) or its decoded one (row 1)."""
        pair, column = divmod(index, self.columns)
        x = _MARGIN + _GUTTER + column * (self.tile_width + _SEPARATOR)
        y = _MARGIN + _TITLE * self.titled + pair * (2 * self.tile_height + _SEPARATOR + _PAIR_SEPARATOR)
        return x, y + row * (self.tile_height + _SEPARATOR)


def sheet_layout(frames: np.ndarray, columns: int = 8, scale: int = 2, title: str = "") -> SheetLayout:
    """The layout of the sheet that `reconstruction_sheet` draws for these arguments; `frames` is uint8[N, H, W, 3]."""
    count, height, width = frames.shape[:3]
    return SheetLayout(count, min(columns, count), width * scale, height * scale, bool(title))


def reconstruction_sheet(
    real: np.ndarray, decoded: np.ndarray, path: Path | str, columns: int = 8, scale: int = 2, title: str = ""
) -> Path:
    """Write a PNG whose rows alternate: real frames, and below each its reconstruction.

    Args:
      real: uint8[N, 64, 64, 3].
      decoded: uint8[N, 64, 64, 3], in the same order.
      path: written whole or not at all.
      columns: frames in a row (fewer when there are fewer frames).
      scale: every pixel becomes a square of this size, unsmoothed, so that blur on the sheet is V's own.
      title: a line above the frames.

    Raises:
      ValueError: no frames, frames that are not uint8 RGB, or two arrays of different shapes.
    """
    _check(real, "real")
    _check(decoded, "decoded")
    if real.shape != decoded.shape:
        raise ValueError(f"real {real.shape} and decoded {decoded.shape} must have one shape")
    if columns < 1 or scale < 1:
        raise ValueError(f"columns ({columns}) and scale ({scale}) must be at least 1")
    layout = sheet_layout(real, columns, scale, title)
    sheet = Image.new("RGB", layout.size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((_MARGIN + _GUTTER, _MARGIN), title, fill=_INK, font=caption_font(14))
    for row, (caption, frames) in enumerate(zip(_CAPTIONS, (real, decoded), strict=True)):
        for index, frame in enumerate(frames):
            x, y = layout.corner(index, row)
            sheet.paste(Image.fromarray(enlarged(frame, scale)), (x, y))
            if index % layout.columns == 0:
                middle = y + layout.tile_height // 2
                draw.text((x - 8, middle), caption, fill=_INK, font=caption_font(13), anchor="rm")
    with whole_file(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
    return Path(path)


def picture_grid(rows: np.ndarray, path: Path | str, scale: int = 2) -> Path:
    """Write a PNG of pictures side by side, such as one in which a number of z changes along each row.

    Args:
      rows: uint8[R, C, H, W, 3].
      path: written whole or not at all.
      scale: every pixel becomes a square of this size.
    """
    count, columns, height, width = rows.shape[:4]
    step_x, step_y = width * scale + _SEPARATOR, height * scale + _SEPARATOR
    sheet = Image.new("RGB", (columns * step_x - _SEPARATOR, count * step_y - _SEPARATOR), _PAPER)
    for row in range(count):
        for column in range(columns):
            sheet.paste(Image.fromarray(enlarged(rows[row, column], scale)), (column * step_x, row * step_y))
    with whole_file(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
    return Path(path)


def enlarged(frame: np.ndarray, scale: int) -> np.ndarray:
    """uint8[H, W, 3] -> uint8[H * scale, W * scale, 3], every pixel repeated."""
    return frame.repeat(scale, axis=0).repeat(scale, axis=1)


def _check(frames: np.ndarray, name: str) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or frames.size == 0:
        raise ValueError(f"{name} must be uint8[N, H, W, 3] with N >= 1, not {frames.dtype}{list(frames.shape)}")
