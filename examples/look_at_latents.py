"""What single numbers of z mean: each is moved from -2 to 2 while the others stay, and V draws what that is.

.venv/bin/python examples/look_at_latents.py [RUN] [--small]
"""

import sys

import numpy as np
from PIL import Image

import wm_jax


def main(small: bool, source: str = "carracing") -> None:
    """Write look_at_latents.png, a row for each of the numbers that vary most over an agent's frames."""
    agent = wm_jax.load(source)
    frames = played_frames(agent, 40 if small else 400)
    z = agent.encode(frames)
    busiest = np.argsort(z.std(axis=0))[::-1][: 3 if small else 8]
    rows = []
    for number in busiest:
        moved = np.repeat(z[len(z) // 2][None], 9, axis=0)
        moved[:, number] = np.linspace(-2, 2, 9)
        rows.append(np.concatenate(agent.decode(moved), axis=1))
    Image.fromarray(np.concatenate(rows)).save("look_at_latents.png")
    print(f"numbers {busiest.tolist()}, by their deviation: {z.std(axis=0)[busiest].astype(float).round(2).tolist()}")


def played_frames(agent: wm_jax.TrainedAgent, steps: int) -> np.ndarray:
    """What the agent sees in one episode, uint8 [steps, 64, 64, 3]."""
    from wm_jax.envs.make import open_pool

    pool, carry, frames = open_pool(agent.game, 1), agent.begin(), []
    frame = pool.reset([5])
    for _ in range(steps):
        frames.append(frame[0])
        actions, carry = agent.act(frame, carry)
        frame = pool.step(actions).frames
    pool.close()
    return np.stack(frames)


if __name__ == "__main__":
    given = [word for word in sys.argv[1:] if not word.startswith("--")]
    main("--small" in sys.argv, *given)
