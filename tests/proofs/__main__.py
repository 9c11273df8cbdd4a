"""`make prove`: runs proofs on Apache Kafka, prints a table, and writes the figures.

Starts Apache Kafka from KAFKA_HOME and real `streamlabel` processes, kills some of them, and judges
by the audit. Ends all that it started. Exits with 0 only if every proof held.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

from tests.chaos.conduct import AuditFailed
from tests.conftest import Broker
from tests.kube import report
from tests.kube.verdicts import Delivery, Failed, Tally, told
from tests.proofs.ground import Ground, Order, folders
from tests.proofs.registry import Proof, chosen, load_all
from tests.proofs.verdicts import broken
from tests.support.apache import ApacheKafka
from worker.errors import StreamlabelError
from worker.settings import read_environment

_BROKEN, _WRONG_USAGE, _INTERRUPTED = 1, 2, 130
_FIGURES = Path("build/proofs.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the proofs, print a table, and write the figures."""
    args = _parser().parse_args(arguments)
    found = load_all()
    if args.list:
        print("\n".join(f"{one.name:<24}{one.summary}" for one in found))
        return 0
    lines: list[report.Line] = []
    try:
        proofs = chosen(found, args.names)
        if reason := missing():
            print(f"proofs: skipped: {reason}")
            return 0
        signal.signal(signal.SIGTERM, _interrupt)
        lines.extend(_run(args, proofs))
    except Failed as error:
        print(f"proofs: {error}", file=sys.stderr)
        return _WRONG_USAGE
    except KeyboardInterrupt:
        print("proofs: interrupted", file=sys.stderr)
        return _INTERRUPTED
    finally:
        if lines:
            report.write(args.figures, lines)
            print(f"\n{report.table(lines)}\nfigures: {args.figures}")
    return 0 if all(line.held for line in lines) else _BROKEN


def missing() -> str:
    """Return why no Apache Kafka can be started here, or an empty string."""
    home = read_environment("KAFKA_HOME")
    if not home or not (Path(home) / "bin" / "kafka-server-start.sh").is_file():
        return "set KAFKA_HOME to the folder of an unpacked Apache Kafka"
    return "" if shutil.which("java") else "there is no java on PATH; Apache Kafka needs Java 17"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.proofs", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="proofs to run [default: all]")
    parser.add_argument(
        "--records", type=_count, default=100_000, metavar="N", help="[default: %(default)s]"
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="S", help="of all that is drawn [default: 1]"
    )
    parser.add_argument(
        "--delivery",
        choices=("at_least_once", "exactly_once"),
        help="of the workers [default: each that the proof is for, in turn]",
    )
    parser.add_argument(
        "--model",
        default="bundled",
        help="name or folder, or `tiny` for random weights [default: bundled]",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep the logs and reports of all processes there"
    )
    parser.add_argument("--figures", type=Path, default=_FIGURES, help="[default: %(default)s]")
    parser.add_argument("--list", action="store_true", help="list the proofs and exit")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of records: give at least 1")
    return int(text)


def _run(args: argparse.Namespace, proofs: Sequence[Proof]) -> Iterator[report.Line]:
    """Run each proof in each of its modes on one broker; yield a line as each ends."""
    home = Path(read_environment("KAFKA_HOME") or "")
    with folders(args.keep) as folder, ApacheKafka(home) as kafka:
        broker = Broker(kafka.bootstrap_servers, "apache", "its own")
        for one in proofs:
            for delivery in one.deliveries:
                if args.delivery in (None, delivery):
                    order = Order(args.records, args.seed, cast("Delivery", delivery), args.model)
                    ended = prove(one, order, broker, folder)
                    print(report.line(ended), flush=True)
                    yield ended


def prove(
    one: Proof,
    order: Order,
    broker: Broker,
    folder: Path,
    ground: Callable[[Broker, Order, Path], Ground] = Ground,
) -> report.Line:
    """Run one proof in one mode, in a folder of its own; return its line of the table."""
    name, begun = f"{one.name} {order.delivery}", time.monotonic()
    place = folder / name.replace(" ", "-").replace("_", "-")
    place.mkdir(exist_ok=True)
    try:
        with ground(broker, order, place) as here:
            proved = one.prove(here)
    except (Failed, AuditFailed, AssertionError, StreamlabelError) as error:
        reasons = told(error) or (str(error) or type(error).__name__,)
        return report.Line(name, one.summary, time.monotonic() - begun, broken=reasons)
    tally, seconds = Tally.of(proved.report), time.monotonic() - begun
    return report.Line(name, proved.what, seconds, tally, broken(proved), proved.figures)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
