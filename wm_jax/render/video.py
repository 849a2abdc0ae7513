"""MP4 videos that every browser plays, and the picture of a game beside its reconstruction."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image, ImageDraw

from wm_jax.render import caption_font, whole_file
from wm_jax.render.sheets import enlarged
from wm_jax.utils.errors import UserError

ENCODERS = ("libx264", "libopenh264", "mpeg4")
"""In order of preference. Browsers play the first two (H.264); `mpeg4` needs a media player."""

_BT709 = 1  # the number of ITU-T H.273 for BT.709 as primaries, transfer and matrix alike
_MARGIN = 12
_CAPTION = 26
_COLOURS = 256
_PAPER = (22, 24, 29)
_INK = (240, 242, 246)
_DIM = (168, 174, 185)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Video:
    """A video that was written. `width` and `height` are what it holds, after padding to even sizes."""

    path: Path
    frames: int
    width: int
    height: int
    fps: float
    encoder: str


def write_video(
    path: Path | str,
    frames: Iterable[np.ndarray],
    fps: float,
    encoders: Sequence[str] = ENCODERS,
) -> Video:
    """Write frames as they come (memory does not grow with the length) to an MP4, whole or not at all.

    Odd sizes grow by a repeated last row or column, since 4:2:0 colour needs even ones.

    Args:
      path: ends in .mp4 by convention.
      frames: uint8[H, W, 3] each, all of one size.
      fps: frames per second.
      encoders: the first one that this PyAV has is used; logged when it is not the preferred one.

    Raises:
      ValueError: no frames, frames of different sizes or not uint8 RGB, or `fps` not positive.
      UserError: PyAV has none of the encoders.
    """
    if not fps > 0:
        raise ValueError(f"fps must be positive, not {fps}")
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise ValueError("a video needs at least one frame")
    size = first.shape
    encoder = _pick(encoders)
    rate = Fraction(fps).limit_denominator(1000)
    count = 0
    options = {"movflags": "+faststart"}
    with whole_file(path) as temporary, av.open(str(temporary), "w", format="mp4", options=options) as container:
        stream: Any = container.add_stream(encoder, rate=rate)
        _set_up(stream, encoder, size, rate)
        for frame in _evened(chain([first], iterator), size):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            picture.pts, picture.time_base = count, 1 / rate
            container.mux(stream.encode(picture))
            count += 1
        container.mux(stream.encode(None))
        written = stream.width, stream.height
    return Video(Path(path), count, *written, float(rate), encoder)


def _pick(encoders: Sequence[str]) -> str:
    for name in encoders:
        try:
            av.Codec(name, "w")
        except UnknownCodecError:
            continue
        if name != ENCODERS[0]:
            _log.warning("PyAV has no %s here: the video is written with %s", ENCODERS[0], name)
        return name
    raise UserError(f"PyAV has no video encoder ({', '.join(encoders)}): reinstall it with `pip install av`")


def _set_up(stream: Any, encoder: str, size: tuple[int, ...], rate: Fraction) -> None:
    context = stream.codec_context
    stream.height, stream.width = (length + length % 2 for length in size[:2])
    stream.pix_fmt = "yuv420p"
    context.gop_size = max(1, round(2 * rate))  # a key frame every two seconds: jumping in the player stays quick
    # Untagged colours are guessed from the picture's size, differently in every player.
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = ColorRange.MPEG
    if encoder == "libx264":
        context.options = {"crf": "18", "preset": "medium"}
    else:
        context.bit_rate = max(500_000, round(stream.height * stream.width * rate / 2))


def _evened(frames: Iterable[np.ndarray], size: tuple[int, ...]) -> Iterator[np.ndarray]:
    padding = ((0, size[0] % 2), (0, size[1] % 2), (0, 0))
    for index, frame in enumerate(frames):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape != size or size[2] != 3:
            raise ValueError(f"frame {index} is {frame.dtype}{list(frame.shape)}, expected uint8{[*size[:2], 3]}")
        yield np.ascontiguousarray(np.pad(frame, padding, mode="edge") if any(map(sum, padding)) else frame)


def side_by_side(
    pictures: Sequence[np.ndarray],
    captions: Sequence[str] = ("game", "reconstruction"),
    scale: int = 4,
    line: str | None = None,
) -> np.ndarray:
    """One video frame: pictures from left to right, each under its caption.

    Args:
      pictures: uint8[H, W, 3] each.
      scale: every pixel becomes a square of this size.
      line: written at the top (score, step), since players lay their controls over the bottom. An empty one keeps
        its room, None leaves it out: give all frames of a video one or the other.

    Returns:
      uint8[H', W', 3] with H' and W' even.
    """
    shapes = {picture.shape for picture in pictures}
    if len(shapes) != 1 or len(pictures) != len(captions):
        raise ValueError(f"{len(pictures)} pictures {sorted(shapes)} must have one shape, and a caption each")
    height, width = pictures[0].shape[0] * scale, pictures[0].shape[1] * scale
    canvas = _frame(height, width, tuple(captions), line is not None).copy()
    top = _CAPTION * (1 + (line is not None))
    for place, picture in enumerate(pictures):
        left = _MARGIN + place * (_MARGIN + width)
        canvas[top : top + height, left : left + width] = enlarged(picture, scale)
    if not line:
        return canvas
    image = Image.fromarray(canvas)
    ImageDraw.Draw(image).text((_MARGIN, 2 + _CAPTION // 2), line, fill=_INK, font=caption_font(16), anchor="lm")
    return np.asarray(image)


@lru_cache(maxsize=8)
def _frame(height: int, width: int, captions: tuple[str, ...], lined: bool) -> np.ndarray:
    """The parts that all frames of a video share; drawing text for every frame again would cost most of the time."""
    across, down = _MARGIN + len(captions) * (width + _MARGIN), height + _CAPTION * (1 + lined) + _MARGIN
    image = Image.new("RGB", (across + across % 2, down + down % 2), _PAPER)
    draw = ImageDraw.Draw(image)
    for place, caption in enumerate(captions):
        x = _MARGIN + place * (width + _MARGIN)
        draw.text((x, _CAPTION // 2 + _CAPTION * lined), caption, fill=_DIM, font=caption_font(14), anchor="lm")
    return np.asarray(image)


def write_gif(path: Path | str, frames: Iterable[np.ndarray], fps: float) -> Path:
    """Write frames uint8[H, W, 3] to a GIF that repeats, whole or not at all.

    Players show no more than 50 frames a second, and times are in hundredths of a second.
    """
    pictures = [Image.fromarray(frame) for frame in frames]
    if not pictures:
        raise ValueError("a film needs at least one frame")
    # One palette for all of them: else colours flicker. It is made from frames all over the film.
    some = np.concatenate([np.asarray(pictures[i]) for i in range(0, len(pictures), max(len(pictures) // 8, 1))])
    palette = Image.fromarray(some).quantize(_COLOURS, dither=Image.Dither.NONE)
    reduced = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    with whole_file(path) as temporary:
        hundredths = max(round(100 / fps), 2)
        reduced[0].save(
            temporary, "GIF", save_all=True, append_images=reduced[1:], duration=10 * hundredths, loop=0, optimize=False
        )
    return Path(path)


def extract_frames(path: Path | str, indices: Iterable[int]) -> np.ndarray:
    """Read back chosen frames of a video that `write_video` wrote.

    Returns:
      uint8[len(indices), H, W, 3], in the order of `indices`.

    Raises:
      IndexError: the video has no such frame.
    """
    wanted = list(indices)
    found: dict[int, np.ndarray] = {}
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index in wanted:
                rgb = frame.reformat(format="rgb24", src_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.JPEG)
                found[index] = rgb.to_ndarray()
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise IndexError(f"{Path(path).name} has no frame {missing[0]}")
    return np.stack([found[index] for index in wanted])
