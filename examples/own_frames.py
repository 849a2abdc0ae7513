"""V trained on frames of your own, and a sheet of what it draws of them.

    .venv/bin/python examples/own_frames.py [--small]

Here the frames are drawn by a few lines of NumPy: balls of two colours that bounce. Put your own array in their place,
uint8 [frames, height, width, 3], or let `bin/import` read a folder of pictures or a video.
"""

import sys

import numpy as np
from PIL import Image

import wm_jax


def bouncing_balls(count: int) -> np.ndarray:
    """uint8 [count, 64, 64, 3]."""
    random, rows = np.random.default_rng(0), np.arange(64)
    frames = np.full((count, 64, 64, 3), 20, np.uint8)
    place, speed = random.uniform(8, 56, (2, 2)), random.uniform(-3, 3, (2, 2))
    for frame in frames:
        place += speed
        speed = np.where((place < 6) | (place > 58), -speed, speed)
        for colour, (y, x) in zip(((230, 80, 60), (70, 160, 240)), place, strict=True):
            frame[(rows[:, None] - y) ** 2 + (rows[None] - x) ** 2 < 25] = colour
    return frames


def main(small: bool) -> None:
    """Train, and write own_frames.png: real frames above, V's below."""
    frames = bouncing_balls(1_200 if small else 10_000)
    vae = {"variant": "vanilla", "latent": 16, "beta": 0.05, "width": 0.25}
    if not small:
        # Many small batches, and a weight on what moves: or the balls, a few pixels, become grey dots.
        vae |= {"batch": 16, "steps": 6000, "moving_weight": 0.3}
    seen = wm_jax.train(frames, preset="smoke" if small else "quick", vae=vae)
    print(f"held-out error: {seen.about['vae']['test_reconstruction']:.1f}, summed over a frame's 12,288 numbers")
    shown = frames[:: len(frames) // 10][:10]
    drawn = seen.decode(seen.encode(shown))
    Image.fromarray(np.concatenate([np.concatenate(rows, axis=1) for rows in (shown, drawn)])).save("own_frames.png")


if __name__ == "__main__":
    main("--small" in sys.argv)
