"""The options of iterate that are not settings; apart from the command, which takes long to import."""

import argparse

ROUNDS, GROWTH = 3, 1.0


def add(parser: argparse.ArgumentParser) -> None:
    """Add them to the command's parser."""
    parser.add_argument("--rounds", metavar="N", type=int, default=ROUNDS, help="rounds in all; the first is the "
                        f"run's own, by random play, and none is done twice [{ROUNDS}]")  # fmt: skip
    parser.add_argument("--keep_vae", action="store_true", help="V of the first round stays: M and C alone learn "
                        "on, which is faster, and latents go on to mean what these have learned")  # fmt: skip
    parser.add_argument("--growth", metavar="X", type=float, default=GROWTH, help="the agent plays so many times as "
                        "many episodes (or frames) for each further round as random play did for the first; replays "
                        f"of all rounds are kept [{GROWTH:g}]")  # fmt: skip
