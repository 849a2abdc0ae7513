"""The options of import that are not settings; apart from the command, which takes long to import."""

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """Add them to the command's parser."""
    parser.add_argument("--from", dest="source", metavar="PATH", help="a folder of pictures, a video, a file with the "
                        "arrays frames, actions, rewards, ends (.npz, .h5), or a folder of any of these")  # fmt: skip
