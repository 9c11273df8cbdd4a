"""The README's tables come from the code and are in step with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import readme
from worker.cli.parser import COMMANDS
from worker.settings import options

EMPTY = "\n\n".join(f"## {n}\n<!-- {n}:begin -->\n<!-- {n}:end -->\n(kept)" for n in readme.TABLES)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A README that had the markers alone, with its tables."""
    path = tmp_path_factory.mktemp("readme") / "README.md"
    path.write_text(EMPTY)
    assert readme.main([], readme=path) == 0
    return path.read_text()


@pytest.fixture
def page(tmp_path: Path, written: str) -> Path:
    path = tmp_path / "README.md"
    path.write_text(written)
    return path


def test_the_project_s_own_readme_is_in_step_with_the_code() -> None:
    """`python -m benchmarks.readme` would change nothing."""
    assert readme.main(["--check"]) == 0


def test_writing_twice_changes_nothing(page: Path, written: str) -> None:
    """Tables replace tables; what stands around them stays."""
    assert readme.main(["--check"], readme=page) == 0
    assert readme.main([], readme=page) == 0
    assert page.read_text() == written
    assert written.count("(kept)") == len(readme.TABLES)


@pytest.mark.parametrize("said", ["`texts.in`", "≤ 65535", "`not_utf8`", "`source.offset`"])
def test_a_changed_table_fails_the_check_and_is_mended(page: Path, written: str, said: str) -> None:
    """A default, a bound, a reason and a member that drifted are noticed."""
    assert said in written
    page.write_text(written.replace(said, "`other`"))
    assert readme.main(["--check"], readme=page) == 1
    assert readme.main([], readme=page) == 0
    assert page.read_text() == written


@pytest.mark.parametrize("name", readme.TABLES)
def test_a_readme_without_a_place_for_a_table_is_refused(
    page: Path, written: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The missing markers are named."""
    page.write_text(written.replace(f"<!-- {name}:end -->", ""))
    assert readme.main(["--check"], readme=page) == 1
    assert f"{name}:begin" in capsys.readouterr().err


def test_every_option_and_command_has_its_row(written: str) -> None:
    """Nothing that can be set or called is left out."""
    rows = [line for line in written.splitlines() if line.startswith("| ")]
    for option in options():
        assert sum(f"| `{option.path}` | `{option.flag}` |" in row for row in rows) == 1
    for command in COMMANDS:
        assert sum(f"| `streamlabel {command}` |" in row for row in rows) == 1


def test_metrics_stand_under_the_names_that_prometheus_stores(written: str) -> None:
    """Counters and infos carry their suffix, labels are listed."""
    assert "| `streamlabel_records_dead_lettered_total` | counter | `reason` |" in written
    assert "| `streamlabel_model_info` | info |" in written
    assert "| `streamlabel_offset_lag` | gauge | `topic`, `partition` |" in written


def test_no_cell_breaks_its_table(written: str) -> None:
    """Every row has as many cells as its head."""
    width = 0
    for line in written.splitlines():
        cells = line.replace("\\|", "").count("|")
        assert cells == width or not (cells and width)
        width = cells
