"""Runs the `streamlabel` command as `python -m worker`."""

import sys

from worker.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
