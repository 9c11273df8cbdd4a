"""Audits a release's topics, and reads when its results were made: `-m tests.kube.observe`.

Runs in the cluster's network and prints one JSON object. It first waits until the group has
committed every record that its inputs have at the start, so that a second result of any of them is
there to be seen.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from schemas import Classification
from tests.kube.figures import longest_gap, rate
from worker.clock import SystemClock
from worker.errors import StreamlabelError
from worker.kafka_io.admin import Admin
from worker.kafka_io.audit import run_audit
from worker.settings import Settings, load

_BEFORE_MS = 180_000  # a result has its record's timestamp, which may be older than itself
_CLOCK = SystemClock()


def main() -> int:
    """Print the audit, and the figures of the results from `--since` on."""
    parser = argparse.ArgumentParser(prog="tests.kube.observe", description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="option path -> value")
    parser.add_argument("--since", type=int, default=0, help="milliseconds; 0: no figures")
    parser.add_argument("--until", type=int, default=0, help="milliseconds; 0: now")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds for the backlog")
    args = parser.parse_args()
    settings = load(args.settings, environ={}).settings
    try:
        lag = _caught_up(settings, args.wait)
        members = _members(settings)
        audit = run_audit(settings, to_end=False, progress=lambda *_: None)
    except StreamlabelError as error:
        print(error, file=sys.stderr)
        return 1
    found = dataclasses.asdict(audit.report) | {
        "lag": lag,
        "notes": audit.notes,
        "members": members,
    }
    if args.since:
        found |= _figures(settings, args.since, args.until or _CLOCK.wall_ms())
    print(json.dumps(found))
    return 0


def _caught_up(settings: Settings, seconds: float) -> int:
    """Wait until all present records are committed; return how many are not after `seconds`."""
    deadline = _CLOCK.monotonic() + seconds
    topic, group = settings.input.topic, settings.kafka.group_id
    with Admin(settings.kafka) as admin:
        ends = admin.end_offsets(topic)
        while True:
            committed = admin.committed(group, topic)
            lag = sum(max(0, end - committed.get(number, 0)) for number, end in ends.items())
            if not lag or _CLOCK.monotonic() > deadline:
                return lag
            _CLOCK.sleep(0.3)


def _members(settings: Settings) -> list[str]:
    """Return the members' ids; the broker begins a static member's with the name of the member."""
    with Admin(settings.kafka) as admin:
        return sorted(member.member_id for member in admin.members(settings.kafka.group_id))


def _figures(settings: Settings, since: int, until: int) -> dict[str, Any]:
    times = _times(settings, since)
    inside = [time / 1000 for found in times.values() for time in found if since <= time <= until]
    return {
        "stall_s": longest_gap(times, since, until) / 1000,
        "rate": rate(inside),
        "results": len(inside),
        "first_s": min(inside, default=until / 1000) - since / 1000,
        "last_s": max(inside, default=until / 1000) - since / 1000,
    }


def _times(settings: Settings, since: int) -> dict[int, list[float]]:
    """Return when the results of each partition were made, in milliseconds."""
    topic = settings.output.topic
    consumer = KafkaConsumer(
        bootstrap_servers=settings.kafka.bootstrap_servers.split(","),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    with contextlib.closing(consumer):
        partitions = [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic)]
        consumer.assign(partitions)
        starts = consumer.offsets_for_times(dict.fromkeys(partitions, since - _BEFORE_MS))
        ends = consumer.end_offsets(partitions)
        for partition in partitions:
            found = starts[partition]
            consumer.seek(partition, found.offset if found else ends[partition])
        times: dict[int, list[float]] = {partition.partition: [] for partition in partitions}
        while any(consumer.position(p) < ends[p] for p in partitions):
            for partition, records in consumer.poll(timeout_ms=500).items():
                times[partition.partition] += [_made(record.value) for record in records]
    return times


def _made(value: bytes) -> float:
    """Return the time at which a result was encoded, in milliseconds."""
    return Classification.model_validate_json(value).processed_at.timestamp() * 1000


if __name__ == "__main__":
    sys.exit(main())
