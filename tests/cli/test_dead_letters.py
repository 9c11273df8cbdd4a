"""`streamlabel dead-letters`: its options, and output that no record can disturb."""

from __future__ import annotations

import json
import re
import unicodedata

import pytest

from worker.cli import letter_view
from worker.cli import main as program
from worker.cli.letter_options import filters_of, require_options_of
from worker.cli.letter_view import print_counts, print_letter, replay_lines
from worker.cli.parser import parse
from worker.core.dead_letters import Letter, LetterFilters, read_letter
from worker.core.letter_groups import LetterCounts
from worker.core.replay import Replay
from worker.core.replay_rules import ReplayCounts
from worker.errors import ArgumentsError

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
HOSTILE = "a\x1b[31m\u202e\r\nb\x00[red]"


def letter(**changes: object) -> Letter:
    document = {
        "reason": "model_failed",
        "message": f"{HOSTILE}: x",
        "source": {"topic": "posts", "partition": 3, "offset": 7, "timestamp_ms": NOW_MS},
        "value_state": "whole",
        "value_bytes": 9,
        "stack_hash": "0123456789abcdef",
        "worker_version": HOSTILE,
        "failed_at": "2026-11-27T10:00:00Z",
        "model": {"name": HOSTILE, "revision": "local", "weights_sha256": "ab" * 32},
    }
    headers = [
        (f"na{HOSTILE}me", HOSTILE.encode()),
        ("bytes", b"\xff\xfe"),
        ("none", None),
        ("streamlabel-source", b"posts/3/7"),
        ("streamlabel-dead-letter", json.dumps(document | changes).encode()),
        Replay(("posts", 3, 1), 2).header,
    ]
    value = f"{HOSTILE}\nlast".encode() + b"\xff"
    return read_letter(1, 17, NOW_MS, HOSTILE.encode(), value, headers)


def is_safe(text: str) -> bool:
    return all(c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") for c in text)


# -- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "ACTION"),
        ("forget", "invalid choice: 'forget'"),
        ("list --limit 3", "--limit goes with `replay`, not with `list`"),
        ("list posts/0/1", "PLACE goes with `show`, not with `list`"),
        ("replay --by hour", "--by goes with `list`, not with `replay`"),
        ("show", "show needs TOPIC/PARTITION/OFFSET"),
        ("show a/0/1 --raw --json", "--raw and --json exclude each other"),
        ("replay --label --to x", "--label and --to exclude each other"),
        ("list --reason not_jsn", "no reason 'not_jsn': did you mean not_json?"),
        ("list --reason zzz", "no reason 'zzz': one of null_value, "),
        ("list --reason not_json,", "an empty value"),
        ("list --partition -1", "must be at least 0"),
        ("replay --limit 0", "must be at least 1"),
        ("replay --rate 0", "must be at least 0.1 a second"),
        ("replay --max-attempts 1001", "must be 1 to 1000"),
    ],
)
def test_a_wrong_option_is_refused_with_the_right_one(
    line: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        require_options_of(parse(["dead-letters", *line.split()]))
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("dead-letters", "list", "--since", "1x"),
        ("offsets", "show", "--dry-run"),
        ("backfill", "--from", "1x", "--to", "now"),
        ("shadow", "report", "--topics", "--url", "http://127.0.0.1:1"),
    ],
)
def test_a_wrong_argument_is_no_wrong_setting(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(words) == 2
    assert capsys.readouterr().err.startswith("streamlabel: wrong arguments\n  ")


def test_the_filters_are_those_of_the_command_line() -> None:
    line = (
        "dead-letters list --reason not_json,not_utf8 --since 2h --until 2026-11-27T10:00 "
        "--partition 0,3 --worker-version 1.0 --failed-model abc --exception E --stack-hash 12"
    )
    assert filters_of(parse(line.split()), NOW_MS) == LetterFilters(
        reasons=("not_json", "not_utf8"),
        since_ms=NOW_MS - 2 * HOUR_MS,
        until_ms=1_795_773_600_000,
        partitions=(0, 3),
        versions=("1.0",),
        models=("abc",),
        exceptions=("E",),
        stack_hashes=("12",),
    )
    assert filters_of(parse(["dead-letters", "list"]), NOW_MS) == LetterFilters()


@pytest.mark.parametrize("flag", ["--since", "--until"])
def test_a_time_has_the_form_of_one(flag: str) -> None:
    args = parse(["dead-letters", "list", flag, "earliest"])
    with pytest.raises(ArgumentsError, match=f"{flag} earliest: use a time such as"):
        filters_of(args, NOW_MS)


@pytest.mark.parametrize("within", ["2026-01-31T12:00", "1x", "now"])
def test_a_report_looks_ahead_for_a_duration(
    within: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is read before the broker is asked."""
    server = ("--bootstrap-servers", "127.0.0.1:1")
    assert program.main(["dead-letters", "purge-report", "--within", within, *server]) == 2
    assert f"--within {within}: use a duration such as 90m, 7d" in capsys.readouterr().err


# -- output --------------------------------------------------------------------------------------


def test_nothing_of_a_record_reaches_the_terminal_as_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Only the value may have lines."""
    print_letter("posts.dead", letter(), first=False)
    printed = capsys.readouterr().out
    assert is_safe(printed)
    head, _, value = printed.lstrip("\n").partition("\n\n")
    assert value == "a[U+001B][31m[U+202E] \nb[U+0000][red]\nlast\\xff\n"
    names = [line[:11].strip() for line in head.splitlines()]
    assert names == [
        *("at", "of", "reason", "message", "stack hash", "model", "failed at", "worker"),
        *("replay", "timestamp", "key", "headers", "", "", "", "", "value"),
    ]
    assert "bytes: \\xff\\xfe" in head
    assert "none: null" in head
    assert "2 of posts/3/1" in head


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "whole"),
        ({"complete": False}, "whole; key or headers were dropped"),
        ({"value_state": "cut", "value_bytes": 12_345}, "the beginning of 12,345"),
        ({"value_state": "null"}, "the record has none"),
        ({"reason": 7}, "as it is"),
    ],
)
def test_the_value_is_told_for_what_it_is(
    changes: dict[str, object], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_letter("posts.dead", letter(**changes), first=True)
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("value")).endswith(f"bytes, {told}")


@pytest.mark.parametrize("columns", [40, 60, 120])
@pytest.mark.parametrize("terminal", [False, True])
def test_a_histogram_fits_the_terminal(
    columns: int,
    terminal: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Bars are for terminals only; names are cut, and shown as they are."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    counts = LetterCounts("reason")
    for _ in range(3):
        counts.add(letter())
    counts.add(letter(reason="not_json", stack_hash=None))
    print_counts("posts.dead", counts, 5)
    printed = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
    first, *rows = printed.splitlines()
    assert first.startswith(
        "posts.dead: 4 dead letters, failed 2026-11-27 10:00 UTC, 4 of a replay"
    )
    assert first.endswith("5 left out by the filters")
    assert max(map(len, rows)) <= columns
    assert ("█" in "".join(rows)) is terminal
    assert "75.0%" in "".join(rows)


def test_only_the_last_hours_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    counts = LetterCounts("hour")
    for hour in range(50):
        counts.add(letter(failed_at=f"2026-11-{10 + hour // 24}T{hour % 24:02}:00:00Z"))
    print_counts("posts.dead", counts, 0)
    printed = capsys.readouterr().out
    assert "2026-11-10T01:00Z" not in printed
    assert "2026-11-12T01:00Z" in printed
    assert printed.endswith("and 2 earlier hours (--json has all)\n")
    assert len(letter_view.counts_document("d", counts, 0)["groups"]) == 50


def test_a_replay_tells_what_it_refused_and_why() -> None:
    counts = ReplayCounts(read=9, filtered=2)
    counts.refused.update({"cut": 3, "attempts": 1})
    assert list(replay_lines(counts, done="3 copied")) == [
        "9 dead letters read: 3 copied, 2 left out by the filters, 4 refused",
        "  refused 3 x cut: only the beginning of the value was kept: --include-cut",
        "  refused 1 x attempts: replayed as often as --max-attempts allows",
    ]


def test_a_record_has_all_its_bytes_in_json() -> None:
    document = letter_view.letter_document("posts.dead", letter())
    assert document["value"] == "YRtbMzFt4oCuDQpiAFtyZWRdCmxhc3T/"
    assert document["replay"] == {"source": ("posts", 3, 1), "attempt": 2}
    assert len(document["headers"]) == 6
    assert json.dumps(document)
