"""`streamlabel bench` on a tiny model writes every figure, and the figures agree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Broker
from tests.support.models import make_checkpoint
from worker.bench.figures import read
from worker.settings import child_environment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def test_a_quick_bench_writes_figures_that_agree(broker: Broker, tmp_path: Path) -> None:
    """Engine and worker get the settings; each ratio matches its two figures."""
    texts, figures = tmp_path / "texts.txt", tmp_path / "bench.json"
    texts.write_text("".join(f"a text of some words, number {n}\n" for n in range(40)))
    model = make_checkpoint(tmp_path / "tiny")
    flags = {
        "--bootstrap-servers": broker.bootstrap_servers,
        "--model": model,
        "--batch-max-records": 16,
        "--batch-forward-tokens": 256,
        "--texts": texts,
        "--seconds": 2,
        "--json": figures,
    }
    arguments = [str(argument) for pair in flags.items() for argument in pair]
    process = subprocess.run(
        [sys.executable, "-P", "-m", "worker", "bench", "--quick", *arguments],
        env=child_environment(TMPDIR=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    result = read(figures)
    engine, latency = result.engine, result.latency
    assert (engine.configured.window, engine.configured.forward_tokens) == (16, 256)
    assert engine.to_pipeline == pytest.approx(
        engine.configured.texts_per_s / engine.pipeline_texts_per_s
    )
    assert result.end_to_end.to_engine == pytest.approx(
        result.end_to_end.records_per_s / engine.configured.texts_per_s
    )
    cpu = result.end_to_end.cpu
    assert cpu is not None
    assert cpu.worker > 0
    assert cpu.broker is not None, "it runs on this machine"
    assert cpu.clients is not None
    assert engine.configured.cpu_us_per_text
    assert cpu.worker_to_engine == pytest.approx(cpu.worker / engine.configured.cpu_us_per_text)
    assert engine.primitives is not None
    assert engine.roofline is not None
    assert engine.roofline.share > 0
    assert [load.share for load in latency.loads] == [0.1, 0.5, 0.9]
    assert all(load.p50 and load.p50 > 0 for load in latency.loads if load.records > 1)
    assert result.texts_from == "texts.txt"
    assert "end to end / engine" in process.stdout
    assert "CPU time of the broker" in process.stdout
