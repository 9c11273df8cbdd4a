"""Creates topics in the cluster's network: `-m tests.kube.topics`."""

from __future__ import annotations

import argparse
import json
import sys

from worker.errors import StreamlabelError
from worker.kafka_io.admin import Admin
from worker.settings import load


def main() -> int:
    """Create the topics that do not exist."""
    parser = argparse.ArgumentParser(prog="tests.kube.topics", description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="option path -> value")
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("names", nargs="+")
    args = parser.parse_args()
    try:
        with Admin(load(args.settings, environ={}).settings.kafka) as admin:
            for name in args.names:
                admin.create(name, args.partitions)
    except StreamlabelError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
