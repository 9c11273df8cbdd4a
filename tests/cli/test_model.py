"""`streamlabel model`: arguments that have no effect, or no sense."""

from __future__ import annotations

import pytest

from worker.cli import main as program


@pytest.mark.parametrize("since", ["yesterday", "earliest", "committed", "0:5", "7", "1x"])
def test_a_history_begins_at_a_time(since: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is read before the broker is asked; a place of a backfill is none."""
    words = ("model", "history", "--since", since, "--bootstrap-servers", "127.0.0.1:1")
    assert program.main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("streamlabel: wrong arguments\n")
    assert f"--since {since}: use a time such as" in err


def test_a_fetch_begins_at_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["model", "fetch", "--model", "bundled", "--since", "1d"]) == 2
    assert "--since has no effect with 'fetch': it belongs to history" in capsys.readouterr().err
