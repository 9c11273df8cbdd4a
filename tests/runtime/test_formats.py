"""The formats of a worker: plain ones need no registry, the others its packages."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tests.registry.stub import Reply, Stub
from tests.support.clocks import HandClock
from worker.core.formats.plain_json import JsonFormat, JsonResults
from worker.core.formats.plain_text import TextFormat
from worker.errors import RegistryAway, RegistryDenied, SettingsError
from worker.metrics import Metrics
from worker.runtime.formats import measured_results, require_packages, topic_formats
from worker.settings import Settings, load

NOWHERE = "http://127.0.0.1:9"


def settings(**values: Any) -> Settings:
    given = {path.replace("__", "."): value for path, value in values.items()}
    return load({"registry.url": NOWHERE} | given, environ={}).settings


@pytest.mark.parametrize(("name", "kind"), [("json", JsonFormat), ("text", TextFormat)])
def test_plain_formats_need_no_registry(name: str, kind: type) -> None:
    formats = topic_formats(settings(input__format=name), Metrics(), HandClock())
    assert isinstance(formats.values, kind)
    assert isinstance(formats.results, JsonResults)
    assert formats.away() is None


def test_a_worker_of_plain_formats_imports_nothing_of_the_registry() -> None:
    """The base install lacks its packages."""
    script = (
        "import sys, worker.cli.check, worker.cli.run, worker.runtime.serve, worker.runtime.launch\n"
        "from worker.clock import SystemClock\n"
        "from worker.metrics import Metrics\n"
        "from worker.runtime.formats import topic_formats, require_packages, measured_results\n"
        "from worker.settings import Settings\n"
        "require_packages(Settings()), measured_results(Settings())\n"
        "topic_formats(Settings(), Metrics(), SystemClock())\n"
        "print(sorted({'worker.registry', 'fastavro', 'httpx2'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"[]\n"


@pytest.mark.parametrize("missing", ["fastavro", "httpx2", "grpc_tools"])
def test_a_missing_extra_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    for name in [name for name in sys.modules if name.startswith(("worker.registry", missing))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SettingsError, match=r"pip install 'streamlabel\[registry\]'") as caught:
        require_packages(settings(input__format="avro"))
    assert "input.format = 'avro'" in str(caught.value)


def test_the_input_alone_does_not_wait_for_a_registry_at_the_start() -> None:
    """Its records wait, partition by partition."""
    formats = topic_formats(settings(input__format="avro"), Metrics(), HandClock())
    assert isinstance(formats.results, JsonResults)
    with formats.resources:
        assert formats.away() is None


def test_a_registry_that_is_away_is_reported_when_results_are_registered() -> None:
    with pytest.raises(RegistryAway):
        topic_formats(settings(output__format="avro"), Metrics(), HandClock())


def test_a_refused_sign_in_stops_the_start_of_a_worker_that_only_reads() -> None:
    with Stub(Reply(401, {"message": "who are you"})) as stub:
        given = settings(input__format="avro", registry__url=stub.url)
        with pytest.raises(RegistryDenied):
            topic_formats(given, Metrics(), HandClock())


@pytest.mark.parametrize("name", ["json", "avro", "json_schema", "protobuf"])
def test_results_are_measured_without_a_registry(name: str) -> None:
    assert measured_results(settings(output__format=name)) is not None
