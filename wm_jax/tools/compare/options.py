"""The options of compare_vaes that are not settings; apart from the command, which takes long to import."""

import argparse

BUDGET, SEEDS, LEADERS, GENERATIONS, EPISODES = 3.0, 2, 4, 15, 50


def add(parser: argparse.ArgumentParser) -> None:
    """Add them to the command's parser."""
    parser.add_argument("--variants", metavar="LIST", default="all", help="what to compare, with commas; each may "
                        "have settings of its own: vanilla,vq,vanilla+encoder=grid [all of ours]")  # fmt: skip
    parser.add_argument("--budget", metavar="MIN", type=float, default=BUDGET, help="minutes of training for each V, "
                        f"on this machine [{BUDGET:g}]")  # fmt: skip
    parser.add_argument("--leaders", metavar="N", type=int, default=LEADERS, help="those that see best, which are "
                        f"trained with further seeds and get a controller [{LEADERS}]")  # fmt: skip
    parser.add_argument("--seeds", metavar="N", type=int, default=SEEDS, help=f"seeds of the leaders [{SEEDS}]")
    parser.add_argument("--generations", metavar="N", type=int, default=GENERATIONS, help="of a leader's controller "
                        f"(0: none) [{GENERATIONS}]")  # fmt: skip
    parser.add_argument("--episodes", metavar="N", type=int, default=EPISODES, help="of the official game that it is "
                        f"scored on [{EPISODES}]")  # fmt: skip
