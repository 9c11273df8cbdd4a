"""`make chaos`: prints one JSON object a seed; exits with 0 only if every promise held."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tests.chaos import decisions
from tests.chaos.cluster import Cluster, cluster
from tests.chaos.conduct import Subject, conduct
from tests.chaos.plan import draw, kinds_of
from worker.errors import StreamlabelError
from worker.settings import load, options, read_environment

_WRONG_USAGE, _BROKEN = 2, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the seeds in turn on one cluster."""
    args = _parser().parse_args(arguments)
    kinds = kinds_of(args.broker, args.format, args.security)
    if args.decisions and args.format != "json":
        print("chaos: --decisions routes by a member of JSON: leave FORMAT out", file=sys.stderr)
        return _WRONG_USAGE
    if args.security != "none" and args.broker != "apache":
        print("chaos: --security needs BROKER=apache", file=sys.stderr)
        return _WRONG_USAGE
    if unknown := set(args.only) - set(kinds):
        print(
            f"chaos: unknown fault for BROKER={args.broker} FORMAT={args.format} "
            f"SECURITY={args.security}: "
            f"{', '.join(sorted(unknown))}; choose from {', '.join(kinds)}",
            file=sys.stderr,
        )
        return _WRONG_USAGE
    held = True
    try:
        settings = _settings(args.set)
        if args.decisions:
            settings = {**decisions.models(_folder()), **settings}
        subject = Subject(
            _model(args.model), args.delivery, settings=settings, decides=args.decisions
        )
        with _cluster(args) as running:
            for seed in args.seed:
                plan = draw(seed, args.faults, args.broker, args.only, args.format, args.security)
                verdict = conduct(plan, running, subject, _log)
                print(verdict.as_json(), flush=True)
                held = held and verdict.holds
    except StreamlabelError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return _WRONG_USAGE
    return 0 if held else _BROKEN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=seeds, default=[1], help="a number, or first..last")
    parser.add_argument("--faults", type=_count, default=30, help="number of faults")
    parser.add_argument(
        "--only", type=_names, default=[], help="kinds to draw from, comma-separated"
    )
    parser.add_argument(
        "--delivery", choices=["at_least_once", "exactly_once"], default="at_least_once"
    )
    parser.add_argument("--broker", choices=["apache", "embedded"], default="apache")
    parser.add_argument("--model", choices=["tiny", "bundled"], default="tiny")
    parser.add_argument(
        "--format", choices=["json", "avro"], default="json", help="of records and results"
    )
    parser.add_argument(
        "--security",
        choices=["none", "sasl_ssl"],
        default="none",
        help="how workers sign in: by SCRAM over TLS, or not at all",
    )
    parser.add_argument(
        "--decisions",
        action="store_true",
        help="two models, windows and three routes, one with copies and one that filters",
    )
    parser.add_argument(
        "--set",
        type=_assignment,
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="a setting of the workers, such as model.dtype=int8 or output.mode=enrich; repeatable",
    )
    return parser


def seeds(text: str) -> list[int]:
    """Parse `7` or `1..20`."""
    matched = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", text)
    if not matched:
        raise argparse.ArgumentTypeError(f"{text!r} is not a seed: give a number, or first..last")
    first = int(matched[1])
    return list(range(first, int(matched[2] or first) + 1))


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of faults: give at least 1")
    return int(text)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _assignment(text: str) -> tuple[str, str]:
    path, equals, value = text.partition("=")
    if not equals or path not in {option.path for option in options()}:
        raise argparse.ArgumentTypeError(f"{text!r} is not a setting and its value: PATH=VALUE")
    return path, value


def _settings(assignments: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the workers' settings; raise Fatal if one has no such value."""
    load(dict(assignments), environ={})
    return dict(assignments)


def _cluster(args: argparse.Namespace) -> AbstractContextManager[Cluster]:
    kafka, registry = read_environment("KAFKA_HOME"), read_environment("REGISTRY_HOME")
    home = Path(registry or "") if args.format == "avro" else None
    return cluster(
        args.broker, Path(kafka) if kafka else None, registry_home=home, sign_in=args.security
    )


def _model(name: str) -> str:
    if name == "bundled":
        return name
    from tests.support.models import make_checkpoint

    return str(make_checkpoint(_folder() / "tiny"))


def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="streamlabel-tiny-"))


def _log(message: str) -> None:
    print(f"chaos: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
