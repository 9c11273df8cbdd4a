"""`make kube`: proves image and chart on a real Kubernetes of one node.

Starts a container engine and a cluster, builds the image, starts Apache Kafka as a pod, installs
the chart, and runs the scenarios under load, each with an audit. Ends all that it started. Exits
with 0 only if every scenario held.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.kube import report
from tests.kube.cluster import Cluster, started
from tests.kube.image import bring
from tests.kube.registry import Scenario, chosen, load_all
from tests.kube.run import run
from tests.kube.site import Site, opened
from tests.kube.verdicts import Failed, told

_BROKEN, _INTERRUPTED = 1, 130
_FIGURES = Path("build/kube.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios, print a table, and write the figures."""
    args = _parser().parse_args(arguments)
    found = load_all()
    if args.list:
        print("\n".join(_described(one) for one in found))
        return 0
    if reason := missing(args.cluster):
        print(f"kube: skipped: {reason}")
        return 0
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    lines: list[report.Line] = []
    try:
        scenarios = chosen(found, args.only, own_cluster=args.cluster is None)
        with contextlib.ExitStack() as stack:
            lines.extend(run(_site(args, stack, lines), scenarios))
    except Failed as error:
        print(f"kube: {'; '.join(told(error))}", file=sys.stderr)
        return _BROKEN
    except KeyboardInterrupt:
        print("kube: interrupted", file=sys.stderr)
        return _INTERRUPTED
    finally:
        if lines:
            report.write(args.figures, lines)
            print(f"\n{report.table(lines)}\nfigures: {args.figures}")
    return 0 if all(line.held for line in lines) else _BROKEN


def missing(cluster: Path | None) -> str:
    """Return why no cluster can be used here, or an empty string."""
    if os.geteuid():
        return "a cluster needs root"
    if cluster is None and (platform.machine(), _release()) != ("x86_64", "bookworm"):
        return "the cluster's programs need x86-64 and Debian bookworm"
    for name in ("KUBERNETES_HOME", "CONTAINERS_HOME"):
        if not Path(os.environ.get(name) or "/nowhere").is_dir():
            return f"{name} names no folder (see CONTRIBUTING.md)"
    return ""


def _release() -> str:
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    except OSError:
        return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.kube", description=__doc__)
    parser.add_argument(
        "--cluster", type=Path, metavar="DIR", help="use the cluster that runs there"
    )
    parser.add_argument(
        "--image",
        default="",
        metavar="TAR|TAG",
        help="an archive of `docker save` with the worker's image and Kafka's, or a tag that the "
        "engine at DOCKER_HOST has; `in:TAG` if the cluster has it [default: build it]",
    )
    parser.add_argument("--namespace", default="streamlabel-kube", help="[default: %(default)s]")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="repeatable")
    parser.add_argument("--figures", type=Path, default=_FIGURES, help="[default: %(default)s]")
    parser.add_argument("--list", action="store_true", help="list the scenarios and exit")
    return parser


def _described(one: Scenario) -> str:
    summary = (one.run.__doc__ or "").strip().splitlines()[0]
    return f"{one.name:<38}{one.under or '-':<16}{summary}"


@contextlib.contextmanager
def _cluster(args: argparse.Namespace) -> Iterator[Cluster]:
    home = Path(os.environ["KUBERNETES_HOME"]).resolve()
    if args.cluster:
        yield Cluster(args.cluster.resolve(), home / "cluster")
        return
    with started(home) as cluster:
        yield cluster


def _site(args: argparse.Namespace, stack: contextlib.ExitStack, lines: list[report.Line]) -> Site:
    """Bring everything up, with a line for the time of each part; the stack ends it."""
    with report.step(lines, "cluster", "the cluster is up"):
        cluster = stack.enter_context(_cluster(args))
    image = bring(cluster, args.image, lines)
    with report.step(lines, "broker", "Kafka is ready"):
        return stack.enter_context(opened(cluster, image, args.namespace))


def interrupt(*_: object) -> None:
    """Interrupt the main thread, once."""
    # A second signal must not end the clean-up: the cluster would go on running.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
