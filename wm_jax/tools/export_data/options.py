"""The options of export_replays that are not settings; apart from the command, which takes long to import."""

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """Add them to the command's parser."""
    parser.add_argument("--to", metavar="FOLDER", help="where they are written; it must not be there yet")
    parser.add_argument("--format", choices=("npz", "minari"), default="npz", help="npz: a file for each episode, as "
                        "bin/import takes them; minari: one dataset of Minari, which needs h5py [npz]")  # fmt: skip
