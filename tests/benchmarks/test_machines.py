"""Each machine has a folder of results, named by its processor."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import bench as program
from benchmarks import machines as folders
from benchmarks.machines import Machine, folder_name, here, machines, provenance
from tests.support.figures import bench


@pytest.mark.parametrize(
    ("cpu", "features", "cores", "name"),
    [
        ("AMD EPYC", ("avx2", "avx512_bf16"), 2, "amd-epyc-2-cores-avx512-bf16"),
        (
            "Intel(R) Xeon(R) Processor @ 2.10GHz",
            ("avx2", "avx512_bf16", "amx_bf16"),
            16,
            "intel-xeon-16-cores-amx-bf16",
        ),
        ("AMD Ryzen 9 CPU", (), 1, "amd-ryzen-9-1-core"),
    ],
)
def test_a_folder_names_processor_cores_and_best_feature(
    cpu: str, features: tuple[str, ...], cores: int, name: str
) -> None:
    assert folder_name(cpu, features, cores) == name


def test_this_machine_has_one_folder(tmp_path: Path) -> None:
    assert here(tmp_path) == here(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [here(tmp_path).name]
    assert machines(tmp_path) == [], "it has no results yet"


def test_a_result_says_where_and_when_it_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside a Git repository the commit is unknown."""
    result = provenance()
    assert set(result) == {"cpu", "cores", "features", "date", "commit"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", result["date"])
    monkeypatch.setattr(folders.shutil, "which", lambda _: None)
    assert provenance()["commit"] == ""


def test_the_reference_comes_before_other_models(tmp_path: Path) -> None:
    other = bench().model.model_copy(update={"name": "other model", "dtype": "int8"})
    apart = bench().end_to_end.model_copy(update={"client_cores": 2})
    result = bench(model=other, end_to_end=apart, date="2026-11-27")
    name = program.file_name(result)
    assert name == "bench-other-model-int8-own-cores.json"
    (tmp_path / name).write_text(result.model_dump_json())
    (tmp_path / "bench.json").write_text(bench().model_dump_json())
    machine = Machine(tmp_path)
    assert [one.model.name for one in machine.benches] == ["a-model", "other model"]
    assert machine.date == "2026-11-27"
    assert machine.title == "a processor, 2 cores, avx2"
