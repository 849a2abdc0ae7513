"""The option of train_controller that asks for the table; apart from the command, which takes long to import."""

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """Add it to the command's parser."""
    text = "evolve one controller in the dream at each of these, and make a table of them"
    parser.add_argument("--temperatures", metavar="T", type=float, nargs="+", help=text)


def asked(options: argparse.Namespace) -> bool:
    """Is the table wanted, and not a controller of the run itself?"""
    return options.temperatures is not None
