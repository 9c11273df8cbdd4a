"""Metrics of a running worker, read by Prometheus' own parsers: they add up."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from schemas.dead_letter import DeadLetterReason
from tests.conftest import Broker, Topics
from tests.support.ports import free_port
from tests.support.records import CARD
from tests.support.workers import (
    Record,
    WorkerThread,
    produce,
    read,
    running,
    texts,
    wait_until,
)
from worker.http.server import HttpServer
from worker.metrics import STAGES, THREADS
from worker.settings import HttpSettings

pytestmark = pytest.mark.integration

Scrape = dict[str, list[tuple[dict[str, str], float]]]
Parser = Callable[[str], Iterator[Metric]]
FORMATS = [("text/plain; version=0.0.4", parse_text), (OPENMETRICS, parse_openmetrics)]
# The allowed values of each label for any input; partitions are the assigned ones.
BOUNDED = {
    "reason": {*(reason.value for reason in DeadLetterReason), "loading", "behind", "failed"},
    "stage": {*STAGES, *THREADS},
    "trigger": {"records", "tokens", "goal", "ready"},
    "source": {"batch", "cache"},
    "kind": {"assigned", "revoked", "lost", "deleted"},
    "outcome": {"answered", "not_found", "refused", "away", "changed", "unchanged", "failed"},
    "label": set(CARD.labels),
}


def strange(n: int) -> Record:
    """Every seventh record is unreadable, each for another reason; some texts repeat."""
    broken = [b"\xff", None, b"[]", b"{}", b'{"text": 3}', b"{", json.dumps({"text": " "}).encode()]
    if n % 7 == 3:
        return b"k", broken[n // 7 % len(broken)]
    return b"k", json.dumps({"text": f"post number {n // 2}"}).encode()


def scrape(port: int, accept: str, parse: Parser) -> Scrape:
    url = f"http://127.0.0.1:{port}/metrics"
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith(accept.partition(";")[0])
        text = answer.read().decode()
    found: Scrape = {}
    for family in parse(text):
        assert family.documentation, f"{family.name} has no help"
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def total(found: Scrape, name: str, **labels: str) -> float:
    return sum(v for has, v in found[name] if labels.items() <= has.items())


def sums(found: Scrape) -> dict[str, float]:
    """Differences that must be zero at any moment."""
    published = total(found, "streamlabel_records_published_total")
    outcomes = published + total(found, "streamlabel_records_dead_lettered_total")
    inflight = total(found, "streamlabel_inflight_records")
    ends = total(found, "streamlabel_end_to_end_seconds_count")
    return {
        "consumed": total(found, "streamlabel_records_consumed_total") - outcomes - inflight,
        "labels": total(found, "streamlabel_labels_total") - published,
        "confidences": total(found, "streamlabel_confidence_count") - published,
        "latencies": ends - outcomes,
        "last bucket": total(found, "streamlabel_end_to_end_seconds_bucket", le="+Inf") - ends,
    }


@pytest.fixture
def port(broker: Broker, topics: Topics) -> Iterator[tuple[WorkerThread, int]]:
    """A worker and the URL of its metrics."""
    small: dict[str, Any] = {"batch__max_records": 16, "max_inflight_records": 128}
    with running(broker, topics, **small) as worker:
        settings = HttpSettings(port=free_port())
        server = HttpServer(settings, worker.metrics, worker.progress)
        try:
            yield worker, settings.port
        finally:
            server.close()


@pytest.mark.parametrize(("accept", "parse"), FORMATS)
def test_every_scrape_adds_up_under_load_and_at_rest(
    broker: Broker, topics: Topics, port: tuple[WorkerThread, int], accept: str, parse: Parser
) -> None:
    """In each scrape, exactly: consumed = published + dead-lettered + in flight."""
    worker, at = port
    number = 3000
    load = [strange(n) for n in range(number)]
    feeding = threading.Thread(target=produce, args=(broker, topics.input, load), name="feed")
    feeding.start()
    seen = []
    while worker.value("streamlabel_records_consumed_total") < number or not seen:
        one = scrape(at, accept, parse)
        if "streamlabel_labels_total" in one:  # the model is loaded
            seen.append(one)
    feeding.join()
    assert [one for one in map(sums, seen) if any(one.values())] == []
    busy = [one for one in seen if total(one, "streamlabel_inflight_records")]
    assert busy, "no scrape fell into the work"

    wait_until(lambda: not worker.value("streamlabel_inflight_records"), what="all is at rest")
    rest = scrape(at, accept, parse)
    assert not any(sums(rest).values())
    assert total(rest, "streamlabel_records_consumed_total") == number
    dead = total(rest, "streamlabel_records_dead_lettered_total")
    assert dead == sum(n % 7 == 3 for n in range(number))
    assert total(rest, "streamlabel_records_published_total") == number - dead
    asked = total(rest, "streamlabel_cache_hits_total") + total(
        rest, "streamlabel_cache_misses_total"
    )
    assert asked == number - dead
    assert total(rest, "streamlabel_batch_records_sum") == number
    assert total(rest, "streamlabel_micro_batches_total") == total(
        rest, "streamlabel_batch_records_count"
    )
    wait_until(
        lambda: not total(scrape(at, accept, parse), "streamlabel_offset_lag"), what="no lag"
    )
    assert len(read(broker, topics.dead, topics.partitions)) == dead
    for samples in rest.values():
        for labels, _ in samples:
            assert all(labels[name] in BOUNDED[name] for name in labels.keys() & BOUNDED.keys())


def test_series_of_partitions_come_and_go_with_them(
    broker: Broker, topics: Topics, port: tuple[WorkerThread, int]
) -> None:
    """The lag of a partition that is gone would stay on the board for ever."""
    worker, at = port

    def owned() -> set[str]:
        found = scrape(at, *FORMATS[0])
        return {labels["partition"] for labels, _ in found.get("streamlabel_offset_lag", [])}

    produce(broker, topics.input, texts(30))
    wait_until(lambda: owned() == {"0", "1", "2"}, what="all partitions are told")
    worker.stop()
    assert owned() == set()


@pytest.mark.parametrize(("accept", "parse"), FORMATS)
def test_names_and_units_follow_the_conventions(
    port: tuple[WorkerThread, int], accept: str, parse: Parser
) -> None:
    """One prefix, base units, and `_total` for counters."""
    _, at = port
    names = [name for name in scrape(at, accept, parse) if name.startswith("streamlabel")]
    assert len(names) > 40
    assert not [name for name in names if name.rpartition("_")[2] in ("ms", "milliseconds", "kb")]
    with urllib.request.urlopen(f"http://127.0.0.1:{at}/metrics", timeout=10) as answer:
        families = list(parse_text(answer.read().decode()))
    for family in families:
        if family.name.startswith("streamlabel") and family.type == "counter":
            assert all(s.name.endswith(("_total", "_created")) for s in family.samples)
        else:
            assert not family.name.endswith("_total")
