"""The programs that run in the cluster's network, here beside a broker of the tests."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from kafka import KafkaProducer

from tests.conftest import Broker, Topics
from tests.kube import observe
from tests.kube.scenarios.planned import require_members
from tests.support.workers import clock, flags, read, running, wait_until
from worker.demo.broker import NEEDS


def feed(broker: Broker, topics: Topics, *more: str) -> subprocess.Popen[str]:
    place = ["--bootstrap-servers", broker.bootstrap_servers, "--topic", topics.input]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.kube.feed", *place, "--partitions", "3", *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def observed(
    broker: Broker,
    topics: Topics,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *more: str,
) -> dict[str, Any]:
    settings = json.dumps(flags(broker, topics))
    monkeypatch.setattr("sys.argv", ["observe", "--settings", settings, *more])
    assert observe.main() == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


@pytest.mark.integration
def test_a_given_number_of_records_is_spread_over_the_partitions(
    broker: Broker, topics: Topics
) -> None:
    output, error = feed(broker, topics, "--count", "31").communicate(timeout=60)
    assert json.loads(output) == {"sent": 31}, error
    records = read(broker, topics.input, topics.partitions)
    assert sorted([record.partition for record in records].count(n) for n in range(3)) == [
        10,
        10,
        11,
    ]
    assert len({json.loads(record.value)["text"] for record in records}) == 31


@pytest.mark.integration
def test_the_feed_ends_with_its_standard_input(broker: Broker, topics: Topics) -> None:
    producer = feed(broker, topics, "--rate", "50")
    wait_until(lambda: len(read(broker, topics.input, topics.partitions)) > 20, what="it produces")
    output, error = producer.communicate(timeout=60)
    assert json.loads(output)["sent"] == len(read(broker, topics.input, topics.partitions)), error


@pytest.mark.integration
def test_the_audit_finds_a_planted_second_result_and_a_stall(
    broker: Broker,
    topics: Topics,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    since = clock.wall_ms()
    with running(broker, topics):
        feed(broker, topics, "--count", "30").communicate(timeout=60)
        found = observed(broker, topics, monkeypatch, capsys, f"--since={since}")
    assert (found["consumed"], found["missing"], found["duplicated"], found["lag"]) == (30, 0, 0, 0)
    assert found["results"] == 30
    made = [clock.wall_ms(), clock.wall_ms() + 60_000]
    later = observed(broker, topics, monkeypatch, capsys, f"--since={since}", f"--until={made[1]}")
    assert later["stall_s"] > 59 > found["stall_s"]

    first = read(broker, topics.output, topics.partitions)[0]
    with KafkaProducer(bootstrap_servers=broker.bootstrap_servers.split(",")) as producer:
        producer.send(
            topics.output, first.value, partition=first.partition, headers=list(first.headers)
        )
    again = observed(broker, topics, monkeypatch, capsys)
    assert (again["duplicated"], again["missing"]) == (1, 0)


@pytest.mark.integration
def test_records_that_nothing_labels_are_told(
    broker: Broker,
    topics: Topics,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with running(broker, topics):
        feed(broker, topics, "--count", "3").communicate(timeout=60)
        assert observed(broker, topics, monkeypatch, capsys)["lag"] == 0
    feed(broker, topics, "--count", "6").communicate(timeout=60)
    found = observed(broker, topics, monkeypatch, capsys, "--wait", "0")
    assert (found["lag"], found["consumed"]) == (6, 3)


@pytest.mark.integration
def test_a_static_member_is_told_by_its_name(
    broker: Broker,
    topics: Topics,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert observed(broker, topics, monkeypatch, capsys)["members"] == []
    with running(broker, topics, kafka__group_instance_id="pod-0-1"):
        feed(broker, topics, "--count", "3").communicate(timeout=60)
        members = observed(broker, topics, monkeypatch, capsys)["members"]
    assert require_members(members, ["pod-0-1"])


@pytest.mark.integration
def test_topics_are_created_once(broker: Broker, topics: Topics) -> None:
    kafka = {"kafka.bootstrap_servers": broker.bootstrap_servers}
    settings = json.dumps(kafka | (NEEDS if broker.kind == "embedded" else {}))
    command = [sys.executable, "-m", "tests.kube.topics", "--settings", settings]
    done = subprocess.run(
        [*command, "--partitions", "3", topics.input], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_page_is_fetched_with_its_status() -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503 if self.path == "/readyz" else 200)
            self.end_headers()
            self.wfile.write(b"first\nsecond\n")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            answers = [fetched(server.server_port, path) for path in ("/readyz", "/metrics")]
        finally:
            server.shutdown()
            thread.join()
    assert answers == [(0, "503\nfirst\nsecond\n"), (0, "200\nfirst\nsecond\n")]
    assert fetched(server.server_port, "/metrics")[0] == 1


def fetched(port: int, path: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "tests.kube.fetch", f"http://127.0.0.1:{port}{path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout
