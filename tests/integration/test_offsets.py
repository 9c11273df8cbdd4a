"""`streamlabel offsets` on a real broker: what it shows, what it changes, and when it refuses."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer, OffsetAndMetadata, TopicPartition

from tests.conftest import Broker, Topics
from tests.support.workers import clock, count, needs_kafka, running, wait_until
from worker.cli.main import main
from worker.core.bounds import Bound
from worker.core.records import Partition
from worker.errors import Fatal
from worker.kafka_io.admin import Admin, GroupOffset
from worker.settings import KafkaSettings

pytestmark = pytest.mark.integration

BEGAN_MS = clock.wall_ms() // 1_000 * 1_000 - 3_600_000  # retention must not delete it


class Command:
    """`streamlabel offsets` for the topics of a test.

    Attributes:
        out, err: of the last run.
    """

    def __init__(
        self,
        broker: Broker,
        topics: Topics,
        admin: KafkaAdminClient,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self._admin, self._topics, self._capsys = admin, topics, capsys
        self._kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
        self._flags = [
            *("--bootstrap-servers", broker.bootstrap_servers),
            *("--group-id", topics.group, "--input-topic", topics.input),
        ]
        self.out = self.err = ""

    def run(self, *arguments: str) -> int:
        """Return the exit code."""
        self._capsys.readouterr()
        code = main(["offsets", *arguments, *self._flags])
        self.out, self.err = self._capsys.readouterr()
        return code

    def shows_no_transaction(self) -> bool:
        return self.run("show") == 0 and "transaction" not in self.out

    def commit(self, *offsets: int, note: str = "") -> None:
        """Commit for the group, from partition 0 on."""
        given = {
            Partition(self._topics.input, number): GroupOffset(offset, note)
            for number, offset in enumerate(offsets)
        }
        with Admin(self._kafka) as ours:
            ours.set_offsets(self._topics.group, given)

    def committed(self) -> dict[int, int]:
        offsets = self._admin.list_group_offsets(self._topics.group)[self._topics.group]
        return {tp.partition: at.offset for tp, at in offsets.items() if at.offset >= 0}


@pytest.fixture
def command(
    broker: Broker,
    topics: Topics,
    admin: KafkaAdminClient,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Command:
    """A group that is at 4, 10 and nowhere, in partitions of ten records, a second apart."""
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
    with contextlib.closing(producer):
        for number in range(10):
            at = BEGAN_MS + 1_000 * number
            for partition in range(topics.partitions):
                producer.send(topics.input, b"{}", partition=partition, timestamp_ms=at)
        producer.flush()
    monkeypatch.setenv("COLUMNS", "150")  # the names of the topics are long
    made = Command(broker, topics, admin, capsys)
    made.commit(4, 10)
    return made


# -- show --------------------------------------------------------------------------------------


def test_a_group_is_shown_by_partition(command: Command, topics: Topics) -> None:
    assert command.run("show", "--json") == 0
    document = json.loads(command.out)
    assert (document["group"], document["members"], document["lag"]) == (topics.group, [], 16)
    common = {
        "topic": topics.input,
        "start": 0,
        "end": 10,
        "member": None,
        "in_open_transaction": False,
        "range": None,
    }
    assert document["partitions"] == [
        common | {"partition": 0, "committed": 4, "lag": 6, "next_record_ms": BEGAN_MS + 4_000},
        common | {"partition": 1, "committed": 10, "lag": 0, "next_record_ms": None},
        common | {"partition": 2, "committed": None, "lag": 10, "next_record_ms": None},
    ]
    assert command.run("show") == 0
    lines = command.out.splitlines()
    assert lines[0] == f"group {topics.group}: 0 members"
    at = datetime.fromtimestamp(BEGAN_MS / 1_000 + 4, UTC)
    assert lines[2].split()[-5:] == ["10", "6", *f"{at:%Y-%m-%d %H:%M:%S} UTC".split()]
    assert lines[4].split()[1:] == ["2", "0", "-", "10", "10", "-"]
    assert lines[-1] == "lag 16"


def test_members_and_ranges_are_shown_if_there_are_some(
    command: Command, broker: Broker, topics: Topics
) -> None:
    command.commit(4, 10, 2, note=Bound(1, 10, 0, "1..now").note())
    with running(broker, topics, kafka__client_id="someone"):
        wait_until(lambda: count(broker, topics) == 14, what="the rest is labelled")
        assert command.run("show", "--json") == 0
    document = json.loads(command.out.splitlines()[-1])  # below the worker's log
    assert [member["client_id"] for member in document["members"]] == ["someone"]
    assert {row["member"] for row in document["partitions"]} == {"someone"}
    command.commit(4, 10, 2, note=Bound(1, 10, 0, "1..now").note())
    assert command.run("show") == 0
    assert command.out.count("1 to 10") == 3


# -- reset -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "after"),
    [
        ("earliest", {0: 0, 1: 0, 2: 0}),
        ("latest", {0: 10, 1: 10, 2: 10}),
        ("7", {0: 7, 1: 7, 2: 7}),
        ("0:1,2:3", {0: 1, 1: 10, 2: 3}),
        (
            f"{datetime.fromtimestamp(BEGAN_MS / 1_000 + 5, UTC):%Y-%m-%dT%H:%M:%S}",
            {0: 5, 1: 5, 2: 5},
        ),
        ("1s", {0: 10, 1: 10, 2: 10}),  # no record is so young
        ("5000", {0: 10, 1: 10, 2: 10}),
    ],
    ids=["earliest", "latest", "number", "numbers", "time", "duration", "beyond"],
)
def test_a_reset_goes_to_a_place(command: Command, to: str, after: dict[int, int]) -> None:
    assert command.run("reset", "--to", to, "--yes", "--json") == 0
    assert command.committed() == after
    rows = json.loads(command.out)["partitions"]
    before = {0: 4, 1: 10, 2: None}
    assert [row["before"] for row in rows] == [before[row["partition"]] for row in rows]
    assert {row["partition"]: row["after"] for row in rows}.items() <= after.items()


def test_a_reset_says_what_it_repeats_and_skips(command: Command, topics: Topics) -> None:
    assert command.run("reset", "--to", "7", "--dry-run") == 0
    lines = command.out.splitlines()
    assert lines[2].split() == [topics.input, "0", "4", "7", "skips", "3"]
    assert lines[3].split() == [topics.input, "1", "10", "7", "reads", "3", "again"]
    assert lines[4].split() == [topics.input, "2", "-", "7", "first", "offset"]
    assert lines[5].startswith("3 offsets read again, 3 offsets skipped; what is read again gets")
    assert command.err == "nothing changed (--dry-run)\n"
    assert command.committed() == {0: 4, 1: 10}
    assert command.run("reset", "--to", "99", "--partition", "1", "--dry-run") == 0
    assert "no change; 99 is beyond the end" in command.out


def test_a_shift_moves_some_partitions(command: Command) -> None:
    assert command.run("reset", "--to", "shift:-3", "--partition", "0,1", "--yes") == 0
    assert command.committed() == {0: 1, 1: 7}
    assert command.run("reset", "--to", "shift:-3", "--partition", "0,1", "--yes") == 0
    assert "-2 is before the start" in command.out
    assert command.committed() == {0: 0, 1: 4}
    assert command.run("reset", "--to", "shift:+1", "--yes") == 2
    assert "can't shift: no offset is committed of" in command.err


def test_exported_offsets_come_back(command: Command, tmp_path: Path) -> None:
    assert command.run("export") == 0
    file = tmp_path / "offsets.csv"
    file.write_text(command.out)
    command.commit(9, 9, 9)
    assert command.run("reset", "--to", f"file:{file}", "--yes") == 0
    assert command.committed() == {0: 4, 1: 10, 2: 9}
    assert command.run("reset", "--to", f"file:{file}.none", "--yes") == 2
    assert "can't read" in command.err


def test_a_group_without_offsets_has_nothing_to_export(
    broker: Broker, topics: Topics, admin: KafkaAdminClient, capsys: pytest.CaptureFixture[str]
) -> None:
    command = Command(broker, topics, admin, capsys)
    assert command.run("export") == 1
    assert "has committed no offset of these topics" in command.err


def test_a_range_survives_a_reset(
    command: Command, admin: KafkaAdminClient, topics: Topics
) -> None:
    """A backfill that is reset still knows its end."""
    note = Bound(1, 10, 0, "1..now").note()
    command.commit(4, 10, 2, note=note)
    assert command.run("reset", "--to", "3", "--yes") == 0
    offsets = admin.list_group_offsets(topics.group)[topics.group]
    assert {at.metadata for at in offsets.values()} == {note}


def test_a_partition_without_a_range_is_not_reset_in_a_backfill(
    command: Command, admin: KafkaAdminClient, topics: Topics
) -> None:
    """Its offset would have an empty note, and every later backfill would refuse the group."""
    command.commit(4, 10, note=Bound(1, 10, 0, "1..now").note())
    assert command.run("reset", "--to", "3", "--yes") == 1
    assert f"has chosen no range of {topics.input}[2] yet" in command.err
    assert command.committed() == {0: 4, 1: 10}
    assert command.run("reset", "--to", "3", "--partition", "0,1", "--yes") == 0
    assert command.committed() == {0: 3, 1: 3}


class Answer(io.StringIO):
    """A terminal with this input; `meanwhile` is called before the input is read."""

    def __init__(self, text: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        super().__init__(text)
        self._meanwhile = meanwhile

    def isatty(self) -> bool:
        return True

    def readline(self, *_: Any) -> str:
        self._meanwhile()
        return super().readline()


def test_a_group_that_moves_before_the_confirmation_is_not_reset(
    command: Command, monkeypatch: pytest.MonkeyPatch, topics: Topics
) -> None:
    """A worker started and stopped while the question was open."""
    monkeypatch.setattr("sys.stdin", Answer("y\n", lambda: command.commit(6)))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert command.run("reset", "--to", "2", "--partition", "0,1") == 1
    assert f"{topics.input}[0] changed before the reset was written" in command.err
    assert command.committed() == {0: 6, 1: 10}


def test_a_group_that_a_worker_joins_before_the_confirmation_is_not_reset(
    command: Command, monkeypatch: pytest.MonkeyPatch, broker: Broker, topics: Topics
) -> None:
    with contextlib.ExitStack() as stack:

        def join() -> None:
            stack.enter_context(running(broker, topics, kafka__client_id="someone"))
            wait_until(lambda: count(broker, topics) == 16, what="the rest is labelled")

        monkeypatch.setattr("sys.stdin", Answer("y\n", join))
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        assert command.run("reset", "--to", "2") == 1
        assert "has 1 member (someone at" in command.err
    assert command.committed() == {0: 10, 1: 10, 2: 10}


@pytest.mark.parametrize(
    ("answer", "terminal", "code", "after"),
    [("y\n", True, 0, 7), ("n\n", True, 1, 4), ("", True, 1, 4), ("y\n", False, 1, 4)],
)
def test_a_reset_is_confirmed_on_a_terminal(
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    terminal: bool,
    code: int,
    after: int,
) -> None:
    """Elsewhere nobody can be asked, and nothing changes without --yes."""
    monkeypatch.setattr("sys.stdin", Answer(answer) if terminal else io.StringIO(answer))
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    assert command.run("reset", "--to", "7", "--partition", "0") == code
    assert command.committed()[0] == after
    assert ("[y/N]" in command.err) is terminal
    assert ("nothing changed: confirm with --yes" in command.err) is (code == 1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("reset",), "reset needs --to: where the group is to go on"),
        (("show", "--to", "7", "--yes"), "--to, --yes has no effect with 'show'"),
        (("export", "--dry-run"), "--dry-run has no effect with 'export'"),
        (("reset", "--to", "someday"), "'someday' is no place in a topic"),
        (("reset", "--to", "0:1,7:2"), "the input has no partition 7"),
        (("reset", "--to", "1", "--partition", "0,8"), "--partition: no partition 8; there are 0"),
    ],
)
def test_wrong_usage_is_refused(command: Command, arguments: tuple[str, ...], told: str) -> None:
    assert command.run(*arguments) == 2
    assert told in command.err
    assert command.committed() == {0: 4, 1: 10}


def test_a_group_with_members_is_not_reset(
    command: Command, broker: Broker, topics: Topics, admin: KafkaAdminClient
) -> None:
    """The broker refuses it too, should a member join after the question."""
    with running(broker, topics, kafka__client_id="someone"):
        wait_until(lambda: count(broker, topics) == 16, what="the rest is labelled")
        assert command.run("reset", "--to", "0", "--yes") == 1
        assert f"group '{topics.group}' has 1 member (someone at" in command.err
        assert "stop them first" in command.err
        with (
            Admin(KafkaSettings(bootstrap_servers=broker.bootstrap_servers)) as ours,
            pytest.raises(Fatal, match=r"the broker refuses the offsets of .* stop all members"),
        ):
            ours.set_offsets(topics.group, {Partition(topics.input, 0): GroupOffset(0, "")})
    assert command.committed() == {0: 10, 1: 10, 2: 10}


def test_an_offset_in_an_open_transaction_is_not_reset(
    command: Command, broker: Broker, topics: Topics
) -> None:
    """A killed worker in exactly_once leaves one, which its timeout ends."""
    needs_kafka(broker, "does not hold back offsets of a transaction")
    producer: Any = KafkaProducer(
        bootstrap_servers=broker.bootstrap_servers, transactional_id=f"{topics.group}-dead"
    )
    with contextlib.closing(producer):
        producer.init_transactions()
        producer.begin_transaction()
        tp = TopicPartition(topics.input, 1)
        producer.send_offsets_to_transaction({tp: OffsetAndMetadata(6, "", -1)}, topics.group)
        assert command.run("reset", "--to", "0", "--yes") == 1
        assert f"offsets of {topics.input}[1] are part of a transaction" in command.err
        assert command.run("show") == 0
        assert f"{topics.input}[1]: an offset is part of a transaction" in command.out
        producer.abort_transaction()
    # The broker answers before the group has the transaction's end.
    wait_until(command.shows_no_transaction, what="the transaction has ended")
    assert command.run("reset", "--to", "0", "--yes") == 0
    assert command.committed() == {0: 0, 1: 0, 2: 0}
