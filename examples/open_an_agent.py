"""The included agent, played, filmed and taken apart.

.venv/bin/python examples/open_an_agent.py [--small]
"""

import sys

import numpy as np

import wm_jax


def main(small: bool) -> None:
    """Play eight episodes, look at one frame through V, M and C, and write open_an_agent.mp4."""
    agent = wm_jax.load("carracing")  # or a run's folder, such as "runs/enduro-quick"
    print({part: summary["weights"][:12] for part, summary in agent.about.items()})

    played = agent.play([1, 2] if small else range(8))
    print(f"returns {played.returns.round(1)}, {played.lengths.sum() / played.seconds:,.0f} steps/s")

    # One step by hand: V makes z of a frame, C an action of z and M's state, and M goes on with both.
    frame = np.full((1, 64, 64, 3), 100, np.uint8)
    z = agent.encode(frame)
    carry = agent.begin()
    actions, carry = agent.act(frame, carry)
    named = zip(agent.game.actions.names, actions[0].astype(float).round(2).tolist(), strict=True)
    print(f"z has {z.shape[1]} numbers; C says", dict(named))
    expected = agent.predict(z, actions)
    print(f"M expects z to change by {np.abs(expected.z - z).mean():.2f} on average; V would draw that as")
    print(agent.decode(expected.z).shape)

    if not small:
        print(agent.film("open_an_agent.mp4", seed=3))


if __name__ == "__main__":
    main("--small" in sys.argv)
