"""Not built yet."""

import argparse

from worker.settings import Loaded

HELP = "not built yet"
OPTIONS: tuple[str, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing yet."""


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Nothing yet."""
    return 1
