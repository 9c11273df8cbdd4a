"""The generated parts of `docs/` come from the code and are in step with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import docs
from benchmarks.docs import commands, runbook
from worker.settings import options

NAMES = {page for page, _ in docs.PARTS}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Pages that had the markers alone, with their generated parts."""
    folder = tmp_path_factory.mktemp("docs")
    for name in NAMES:
        markers = [
            f"# {part}\n<!-- {part}:begin -->\n<!-- {part}:end -->\n(kept)"
            for page, part in docs.PARTS
            if page == name
        ]
        (folder / name).write_text("\n\n".join(markers), encoding="utf-8")
    assert docs.main([], pages=folder) == 0
    return {name: (folder / name).read_text(encoding="utf-8") for name in NAMES}


@pytest.fixture
def pages(tmp_path: Path, written: dict[str, str]) -> Path:
    for name, text in written.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_the_docs_are_in_step_with_the_code() -> None:
    """`python -m benchmarks.docs` would change nothing."""
    assert docs.main(["--check"]) == 0


def test_writing_twice_changes_nothing(pages: Path, written: dict[str, str]) -> None:
    """Generated parts are replaced; the text around them stays."""
    assert docs.main(["--check"], pages=pages) == 0
    assert docs.main([], pages=pages) == 0
    assert {name: (pages / name).read_text(encoding="utf-8") for name in NAMES} == written
    assert sum(text.count("(kept)") for text in written.values()) == len(docs.PARTS)


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("settings.md", "`texts.in`"),
        ("settings.md", "≤ 65,535"),
        ("messages.md", "`not_utf8`"),
        ("messages.md", "`source.offset`"),
        ("runbook.md", "StreamlabelStalled"),
    ],
)
def test_drift_fails_the_check_and_is_corrected(
    pages: Path,
    written: dict[str, str],
    page: str,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A default, a bound, a reason, a member and an alert that differ from the code are noticed."""
    assert words in written[page]
    (pages / page).write_text(written[page].replace(words, "`other`"), encoding="utf-8")
    assert docs.main(["--check"], pages=pages) == 1
    assert page in capsys.readouterr().err
    assert docs.main([], pages=pages) == 0
    assert (pages / page).read_text(encoding="utf-8") == written[page]


@pytest.mark.parametrize(("page", "part"), docs.PARTS)
def test_missing_markers_are_named(
    pages: Path,
    written: dict[str, str],
    page: str,
    part: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A page without a place for its generated part is refused."""
    text = written[page].replace(f"<!-- {part}:end -->", "")
    (pages / page).write_text(text, encoding="utf-8")
    assert docs.main(["--check"], pages=pages) == 1
    assert f"{part}:begin" in capsys.readouterr().err


def test_every_option_and_command_has_an_entry(written: dict[str, str]) -> None:
    """The pages leave out no setting and no command."""
    headings = [line for line in written["settings.md"].splitlines() if line.startswith("### ")]
    assert len(headings) == len(options())
    for option in options():
        assert sum(f"`{option.path}`" in heading for heading in headings) == 1
        assert f"`{option.flag}` · " in written["settings.md"]
    for command in commands.summaries():
        assert f"\n## `streamlabel {command}` " in written["commands.md"]


def test_types_and_defaults_of_settings_are_in_words(written: dict[str, str]) -> None:
    """A table of client options has numbers and switches too; `()` and `{}` are Python's."""
    page = written["settings.md"]
    for path, facts in (
        ("kafka.extra", "table; default empty"),
        ("kafka.sasl_oauth_extensions", "table; default empty"),
        ("kafka.sasl_oauth_parameters", "secret table; default empty"),
        ("input.topics", "list of strings; default empty"),
    ):
        entry = page.partition(f"### `{path}`")[2].partition("{ .option }")[0]
        assert facts in entry.splitlines()


def test_a_commands_own_arguments_are_described(written: dict[str, str]) -> None:
    """The settings that a command takes are left to their own page."""
    page = written["commands.md"]
    assert "| `--to-end` | " in page
    assert "--kafka-" not in page


def test_metrics_have_the_names_that_prometheus_stores(written: dict[str, str]) -> None:
    """Counters and infos carry their suffix, labels are listed."""
    page = written["metrics.md"]
    assert "| `streamlabel_records_dead_lettered_total` | counter by `reason` |" in page
    assert "| `streamlabel_model_info` | info |" in page
    assert "| `streamlabel_offset_lag` | gauge by `topic`, `partition` |" in page


def test_every_alert_has_a_runbook_entry() -> None:
    """Each entry has the alert's name, its condition and a remedy."""
    alerts = runbook.ALERTS.read_text(encoding="utf-8").count("- alert: ")
    entries = runbook.page().split("\n## ")
    assert alerts == len(entries) > 10
    assert all("```promql\n" in entry and "{{" not in entry for entry in entries)


def test_no_cell_breaks_its_table(written: dict[str, str]) -> None:
    """Every row has as many cells as its head."""
    for text in written.values():
        width = 0
        for line in text.splitlines():
            cells = line.replace("\\|", "").count("|") if line.startswith("|") else 0
            assert cells == width or not (cells and width)
            width = cells


def test_names_in_the_runbook_are_code() -> None:
    """Names of settings, metrics and paths are marked once, also those that were marked already."""
    page = runbook.page()
    assert "`kafka.session_timeout`" in page
    assert "`/livez`" in page
    assert "``" not in page.replace("```", "")
