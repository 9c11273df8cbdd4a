"""Report how a second model compares with the one in use: agreement, flips, divergence, time.

    streamlabel shadow report
    streamlabel shadow report --json --url http://10.0.0.7:9100
    streamlabel shadow report --topics --shadow-topic texts.shadow

A worker with `shadow.name` compares both models on a share of its texts. The report reads the
worker's figures over HTTP. With --topics it compares the results in `output.topic` with those in
`shadow.topic` instead, without a worker; both must be in JSON. Exits 1 if there is nothing to
report.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any, Final

from worker.core.counted import counted
from worker.core.visible import excerpt
from worker.errors import ArgumentsError, SettingsError
from worker.settings import Loaded, Settings

if TYPE_CHECKING:  # loading it loads the Kafka client
    from worker.kafka_io.shadow_results import ReadProgress

OPTIONS: tuple[str, ...] = (
    *("http.token", "shadow.topic", "shadow.labels", "kafka."),
    *("input.topic", "input.topics", "input.topic_pattern", "output.topic"),
)

_NAME: Final = 32  # characters of a label or a model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action, where the figures come from, and the format."""
    parser.add_argument("action", choices=("report",), help="report the comparison")
    parser.add_argument(
        "--url",
        metavar="URL",
        help="address of the worker [default: this machine, with http.port of the settings]",
    )
    parser.add_argument(
        "--topics",
        action="store_true",
        help="compare the results in output.topic and shadow.topic, without a worker",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Print the report; return 0.

    Raises:
        SettingsError: the address or the topics can't be used.
        StreamlabelError: no worker answers there, or there is nothing to compare.
    """
    if args.topics and args.url:
        raise ArgumentsError("--topics reads no worker: leave --url out")
    member = _of_topics(loaded.settings) if args.topics else _of_worker(args.url, loaded.settings)
    if args.json:
        print(json.dumps(member, ensure_ascii=False))
    else:
        _print(member)
    return 0


def _of_worker(url: str | None, settings: Settings) -> dict[str, Any]:
    from worker.http.client import WatchError, address_of, snapshots

    secret, address = settings.http.token, url or address_of(settings.http)
    snapshot = next(snapshots(address, secret.get_secret_value() if secret else ""))
    member: dict[str, Any] | None = snapshot.get("shadow")
    if member is None:
        raise WatchError(
            f"the worker at {address} has no second model: set shadow.name and start it again"
        )
    return member


def _of_topics(settings: Settings) -> dict[str, Any]:
    from worker.http.shadow import comparison_member
    from worker.kafka_io.shadow_results import compare_topics
    from worker.metrics import DIVERGENCE_BUCKETS

    if not settings.shadow.topic:
        raise SettingsError("--topics needs shadow.topic, where the second model's results are")
    if settings.output.format != "json":
        raise SettingsError(
            f"--topics reads results in JSON, and output.format = {settings.output.format!r}: "
            "leave --topics out to read a running worker's figures"
        )
    if settings.decision.top_k is not None:
        raise SettingsError(
            f"--topics needs every label of a result, and decision.top_k = {settings.decision.top_k} "
            "leaves some out: leave --topics out to read a running worker's figures"
        )
    found = compare_topics(settings, DIVERGENCE_BUCKETS, _progress_line())
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    against, model = found.models
    return {
        "model": model,
        "against": against,
        "state": "topics",
        **comparison_member(found.comparison),
        "unmatched": found.unmatched,
        "others": found.others,
    }


def _progress_line() -> ReadProgress:
    """Return a callback that keeps one line of a terminal up to date."""

    def show(topic: str, done: int, total: int) -> None:
        print(f"\r\033[K{topic}: {done:,} of {total:,}", end="", file=sys.stderr, flush=True)

    def ignore(topic: str, done: int, total: int) -> None:
        """Print nothing: standard error is not a terminal."""

    return show if sys.stderr.isatty() else ignore


# -- for people --------------------------------------------------------------------------------


def _print(member: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)

    def line(name: str, text: str) -> None:
        console.print(f"{name:<12}{text}", markup=False)

    line("shadow", _headline(member))
    texts = member["texts"]
    if not texts:
        line("agreement", _nothing(member))
    else:
        low, high = member["interval"]
        line(
            "agreement",
            f"{_percent(member['agreement'])} of {counted(texts, 'text')} "
            f"(95 % interval: {_percent(low)} to {_percent(high)})",
        )
        line("divergence", _divergence(member))
        for number, row in enumerate(_flip_rows(member, texts)):
            line("" if number else "flips", row)
    for name, text in _rest(member):
        line(name, text)


def _headline(member: dict[str, Any]) -> str:
    model, against = excerpt(member["model"], _NAME), excerpt(member["against"], _NAME)
    if member["state"] == "topics":
        return f"{model}, compared with {against} by their topics"
    share = f"{_percent(member['share'])} of the records"
    if not model:
        return f"{member['state']}: is to see {share}"
    since = f" since {_moment(member['since'])}" if member["since"] else ""
    return f"{model}, compared with {against} on {share}{since} ({member['state']})"


def _nothing(member: dict[str, Any]) -> str:
    if member["state"] == "failed":
        return "no text was compared: the second model is off, and the worker's log says why"
    return "no text was compared yet"


def _divergence(member: dict[str, Any]) -> str:
    divergence = member["divergence"]
    if divergence is None:
        return "none, as the models have different labels"
    quantiles = ", ".join(f"{name} {divergence[name]:.4f}" for name in ("p50", "p90", "p99"))
    return f"mean {divergence['mean']:.4f}, {quantiles} bits (Jensen-Shannon, 0 to 1)"


def _flip_rows(member: dict[str, Any], texts: int) -> list[str]:
    flips = member["flips"]
    if not flips:
        return ["none"]
    pairs = [(excerpt(f["from"], _NAME), excerpt(f["to"], _NAME), f["number"]) for f in flips]
    wide, wider = (max(len(pair[side]) for pair in pairs) for side in (0, 1))
    digits = len(f"{max(number for *_, number in pairs):,}")
    rows = [
        f"{a:<{wide}} -> {b:<{wider}}  {number:>{digits},}  {_percent(number / texts):>8}"
        for a, b, number in pairs
    ]
    if left := member["flips_left_out"]:
        rows.append(f"other pairs: {left:,}")
    return rows


def _rest(member: dict[str, Any]) -> list[tuple[str, str]]:
    if member["state"] == "topics":
        found = [("not matched", f"{member['unmatched']:,} without a result of the worker (yet)")]
        if member["others"]:
            found.append(("left out", f"{counted(member['others'], 'text')} of earlier models"))
        return found
    latency, skipped = member["latency"], member["skipped"]
    times = ", ".join(
        f"{name} {value:.2f} ms" if value is not None else f"{name} unknown"
        for name, value in (("shadow", latency["shadow_ms"]), ("model", latency["model_ms"]))
    )
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in skipped.items())
    rest = [("time a text", times), ("skipped", reasons or "none")]
    if lost := member["unpublished"]:
        rest.append(("unpublished", f"{counted(lost, 'result')} did not reach shadow.topic"))
    return rest


def _percent(share: float) -> str:
    return f"{share:.2%}".replace("%", " %")


def _moment(ms: float) -> str:
    from datetime import UTC, datetime

    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
