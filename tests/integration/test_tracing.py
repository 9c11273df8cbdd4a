"""The trace of a record continues through the worker, over a real broker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.openmetrics.exposition import generate_latest

from tests.conftest import Broker, Topics
from tests.support.models import make_checkpoint
from tests.support.workers import clock, count, flags, produce, read, running, wait_until
from worker.runtime.spans import exporting
from worker.settings import child_environment, load

pytestmark = pytest.mark.integration

PARENT = f"00-{'a' * 32}-{'b' * 16}-01".encode()


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_trace_context_is_read_from_headers_and_written_to_headers(
    broker: Broker, topics: Topics
) -> None:
    """A result has the span's context, with a link to the text's; a dead letter keeps its own."""
    headers = [("traceparent", PARENT), ("tracestate", b"vendor=1"), ("x", b"1")]
    bodies = [b'{"text":"hello"}', b"no JSON"]
    produce(broker, topics.input, [(None, body) for body in bodies], headers=headers)
    exporter = InMemorySpanExporter()
    settings = load(flags(broker, topics) | {"tracing.sample_ratio": 1}, environ={}).settings
    tracing = exporting(settings, clock, exporter)
    with running(broker, topics, tracing=tracing) as worker:
        wait_until(lambda: count(broker, topics) == 2, what="both have an outcome")
        wait_until(lambda: worker.published == 1, what="the worker knows")
        exposed = generate_latest(worker.metrics.registry).decode()
    tracing.close()
    (result,) = read(broker, topics.output, 1)
    (letter,) = read(broker, topics.dead, 1)
    carried = dict(result.headers)
    _, trace_id, span_id, flag = carried["traceparent"].decode().split("-")
    (span,) = [s for s in exporter.get_finished_spans() if f"{s.context.span_id:016x}" == span_id]
    assert (trace_id, flag) == (f"{span.context.trace_id:032x}", "01")
    assert {f"{link.context.trace_id:x}" for link in span.links} == {"a" * 32}
    assert ("tracestate" in carried, carried["x"]) == (False, b"1")
    assert dict(letter.headers)["traceparent"] == PARENT
    assert f'trace_id="{trace_id}"' in exposed  # an exemplar, if OpenMetrics is requested


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_without_tracing_a_records_context_passes_through(broker: Broker, topics: Topics) -> None:
    produce(broker, topics.input, [(None, b'{"text":"hi"}')], headers=[("traceparent", PARENT)])
    with running(broker, topics):
        wait_until(lambda: count(broker, topics) == 1, what="it is labelled")
    (result,) = read(broker, topics.output, 1)
    assert dict(result.headers)["traceparent"] == PARENT


def test_a_missing_extra_is_an_error_with_the_install_command(tmp_path: Path) -> None:
    """It comes before the model loads."""
    (tmp_path / "opentelemetry.py").write_text("raise ImportError('planted')")
    model = make_checkpoint(tmp_path / "model")
    program = "import sys; sys.path.insert(0, sys.argv.pop(1)); from worker.cli.main import main"
    command = [sys.executable, "-c", f"{program}; sys.exit(main())", str(tmp_path)]
    command += ["run", "--model", str(model), "--tracing-sample-ratio", "0.5"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=child_environment()
    )
    assert done.returncode == 2, done.stderr
    assert "pip install 'streamlabel[tracing]'" in done.stderr


def test_opentelemetry_is_not_imported_if_tracing_is_off() -> None:
    program = (
        "import sys; import worker.runtime.launch, worker.cli.run; "
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert json.loads(found.stdout) == []
