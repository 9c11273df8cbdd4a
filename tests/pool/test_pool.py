"""A pool's parent restarts processes, gives up on a crash loop, and stops all of them together.

The processes here are small programs that speak the pool's protocol and do nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.clocks import HandClock
from tests.support.sites import post
from tests.support.workers import STUCK_LOAD, ObedientModel, clock, wait_until
from worker.errors import Fatal, SettingsError, StageCrashed
from worker.http import classify
from worker.http.ask import Answer, Unanswerable
from worker.http.feeds import PageFeeds
from worker.http.health import Verdict
from worker.http.server import HttpServer
from worker.metrics import Metrics
from worker.pool import memory_kills, reports, supervisor
from worker.pool import slot as slot_module
from worker.pool.ask import AskRouter
from worker.pool.child import Child, command
from worker.pool.entry import _lines
from worker.pool.memory_kills import MemoryKills
from worker.pool.reports import ChildReport, Reporter, decode
from worker.pool.shares import slot_settings
from worker.pool.slot import MAX_FAILURES, STABLE_AFTER, Slot
from worker.pool.supervisor import Pool
from worker.runtime.progress import Progress
from worker.settings import HttpSettings, Settings, load

READY = ChildReport((True, "running"), (True, "running"))
LONG = 300_000  # characters; more than a pipe's buffer

# -- a slot --------------------------------------------------------------------------------------


class FakeChild(Child):
    """A process that ends when a test sets its exit code."""

    def __init__(self, reported_at: float) -> None:
        self.pid, self.code, self.error = 1, None, "no reason"
        self.report, self.reported_at = None, reported_at

    def poll(self) -> int | None:
        return self.code

    @property
    def reason(self) -> str:
        return self.error


class SlotHarness:
    """A slot with fake processes, and a record of its callbacks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = HandClock()
        self.started: list[FakeChild] = []
        self.ends = self.restarts = 0
        self.attempts: list[int] = []
        monkeypatch.setattr(slot_module, "backoff", self._backoff)
        self.slot = Slot(
            3,
            load({}, environ={}).settings,
            start=self._start,
            on_end=self._end,
            on_restart=self._restart,
            silence=20,
            clock=self.clock,
        )

    def _start(self, settings: Settings) -> FakeChild:
        self.started.append(FakeChild(self.clock.now))
        return self.started[-1]

    def _end(self) -> None:
        self.ends += 1

    def _restart(self) -> None:
        self.restarts += 1

    def _backoff(self, attempt: int, base: float) -> float:
        self.attempts.append(attempt)
        return attempt * base

    def live_for(self, seconds: float, code: int, report: ChildReport | None = None) -> None:
        """Start a process, let it run and end it."""
        self.slot.step()
        child = self.started[-1]
        child.report = report
        self.slot.step()
        self.clock.sleep(seconds)
        child.code = code
        self.slot.step()

    def wait(self) -> None:
        """Wait for the backoff, and check that the slot does not start earlier."""
        count = len(self.started)
        self.slot.step()
        assert len(self.started) == count
        self.clock.sleep(self.attempts[-1] * 0.5)


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> SlotHarness:
    return SlotHarness(monkeypatch)


def test_the_backoff_grows_and_is_reset_by_a_stable_run(harness: SlotHarness) -> None:
    for _ in range(3):
        harness.live_for(1, 1)
        harness.wait()
    harness.live_for(STABLE_AFTER, 1, READY)
    harness.wait()
    harness.live_for(1, 1, READY)
    assert harness.attempts == [1, 2, 3, 1, 2]
    assert (harness.ends, harness.restarts) == (5, 4)


@pytest.mark.parametrize("code", [0, 1, -9])
def test_a_process_that_ends_by_itself_is_restarted(harness: SlotHarness, code: int) -> None:
    harness.live_for(1, code)
    assert harness.slot.live() == (True, "waiting to restart")
    assert not harness.slot.ready()[0]
    harness.wait()
    harness.slot.step()
    assert len(harness.started) == 2


@pytest.mark.parametrize("report", [None, READY])
def test_a_crash_loop_ends_the_pool_with_the_last_reason(
    harness: SlotHarness, report: ChildReport | None
) -> None:
    for _ in range(MAX_FAILURES - 1):
        harness.live_for(STABLE_AFTER - 1, 1, report)
        harness.wait()
    harness.slot.step()
    harness.started[-1].error = "no such model"
    with pytest.raises(Fatal, match=r"slot 3 failed 5 times in a row .* no such model"):
        harness.live_for(0, 1)


def test_a_process_that_refuses_its_settings_is_not_restarted(harness: SlotHarness) -> None:
    harness.slot.step()
    harness.started[0].error = "no such device"
    with pytest.raises(SettingsError, match="slot 3: no such device"):
        harness.live_for(0, 2)


def test_a_slot_has_the_health_that_its_process_reports(harness: SlotHarness) -> None:
    harness.slot.step()
    assert (harness.slot.live(), harness.slot.ready()) == ((True, "starting"), (False, "starting"))
    harness.started[0].report = ChildReport((True, "warming"), (False, "warming"))
    assert (harness.slot.live(), harness.slot.ready()) == ((True, "warming"), (False, "warming"))
    harness.started[0].report = ChildReport((False, "infer holds 5"), (True, "running"))
    assert (harness.slot.live(), harness.slot.ready()) == ((False, "infer holds 5"),) * 2


def test_the_page_learns_of_a_process_that_has_ended(harness: SlotHarness) -> None:
    harness.slot.step()
    harness.started[0].report = READY
    assert harness.slot.describe()["ready"]
    harness.live_for(0, 1)
    described = harness.slot.describe()
    assert described == {
        "slot": 3,
        "pid": None,
        "live": True,
        "ready": False,
        "reason": "waiting to restart",
    }


def test_a_process_without_reports_is_not_live(harness: SlotHarness) -> None:
    harness.slot.step()
    harness.started[0].report = READY
    harness.clock.sleep(21)
    assert harness.slot.live() == (False, "no report for 21 s")
    assert not harness.slot.ready()[0]


# -- processes -----------------------------------------------------------------------------------

PROGRAM = """
import json, os, signal, sys, time
config = json.loads(sys.stdin.readline())
slot, settings = config["slot"], config["settings"]
mode, home = sys.argv[1], sys.argv[2]
lives = os.path.join(home, f"lives-{slot}")
with open(lives, "a") as file:
    file.write("x")
life = os.path.getsize(lives)
status = settings["kafka.client_id"]
def report(published=0, reason="", answer=None):
    samples = [["streamlabel_records_published_total", {}, published, None]]
    family = ["streamlabel_records_published", "Help.", "counter", "", samples]
    line = {"live": [True, status], "ready": [True, status], "metrics": [family], "reason": reason}
    posts = [{"id": f"{slot}-{n}", "at": 2 * n + slot} for n in range(9) if config["page"]]
    line["notes"] = {"posts": posts}
    line["answer"], line["model"] = answer, {}
    print(json.dumps(line), flush=True)
def stop(number, frame):
    unclean = slot == 0 and mode.startswith("unclean")
    report(10, "could not drain" if unclean else "")
    if mode == "unclean, then signalled":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    sys.exit(unclean)
signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "deaf" else stop)
if mode == "refuses" and slot == 1:
    report(0, "no such device")
    sys.exit(2)
report(10 if life == 1 else 1)
for line in sys.stdin:
    text = json.loads(line)["text"]
    if text == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    said = {"label": f"slot {slot}", "token_count": len(text)}
    answer = {"said": said, "seconds": 0.5}
    report(answer="it fails" if text == "strange" else answer)
while mode == "deaf":
    time.sleep(0.05)
"""


class RunningPool:
    """A pool on a thread of its own; `error` is the exception that ended it."""

    def __init__(self, mode: str, home: Path, **more: Any) -> None:
        settings = load({"processes": 2, "model.threads": 3, **more}, environ={}).settings
        self.stop = threading.Event()
        self.pool = Pool(settings, program(mode, home), clock, self.stop)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="pool")
        self.thread.start()

    def _run(self) -> None:
        try:
            self.pool.run()
        except BaseException as error:  # noqa: BLE001 - for the test to judge
            self.error = error

    def wait_ready(self) -> None:
        wait_until(lambda: self.pool.ready()[1] == "2 of 2 ready", what="both are ready")

    def value(self, name: str) -> float:
        return self.pool.totals.registry.get_sample_value(name) or 0.0

    def end(self) -> BaseException | None:
        self.stop.set()
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.error


def program(mode: str, home: Path) -> Sequence[str]:
    return [sys.executable, "-c", PROGRAM, mode, str(home)]


@contextlib.contextmanager
def running(mode: str, home: Path, **more: Any) -> Iterator[RunningPool]:
    pool = RunningPool(mode, home, **more)
    try:
        yield pool
    finally:
        pool.pool.kill()
        pool.end()


def test_all_processes_run_under_their_own_names_and_stop_together(
    tmp_path: Path,
) -> None:
    with running("obeys", tmp_path) as pool:
        pool.wait_ready()
        assert pool.pool.live() == (True, "slot 0: streamlabel-0, slot 1: streamlabel-1")
        assert pool.end() is None
    assert pool.value("streamlabel_records_published_total") == 20


def test_the_page_of_a_pool_shows_the_last_posts_of_all_processes(tmp_path: Path) -> None:
    with running("obeys", tmp_path) as pool:
        pool.wait_ready()
        notes = pool.pool.notes()
        ids = [post["id"] for post in notes.posts]
        assert ids == [f"{slot}-{n}" for n in range(8, 4, -1) for slot in (1, 0)]
        assert [(one["slot"], one["ready"]) for one in notes.workers] == [(0, True), (1, True)]
        assert pool.end() is None


def test_without_a_page_no_process_keeps_posts(tmp_path: Path) -> None:
    with running("obeys", tmp_path, **{"http.enabled": False}) as pool:
        pool.wait_ready()
        assert not pool.pool.notes().posts
        assert pool.end() is None


def test_a_killed_process_is_restarted_and_its_counts_stay(tmp_path: Path) -> None:
    with running("obeys", tmp_path) as pool:
        pool.wait_ready()
        values = [0.0]

        def counted(number: int) -> bool:
            values.append(pool.value("streamlabel_records_published_total"))
            return values[-1] == number

        wait_until(lambda: counted(20), what="both processes have counted")
        child = pool.pool._slots[1].child
        assert child is not None
        child.kill()
        wait_until(lambda: counted(21), what="the second process has counted")
        assert values == sorted(values)
        assert pool.value("streamlabel_process_restarts_total") == 1
        assert pool.end() is None


def test_a_process_that_refuses_its_settings_stops_the_pool(tmp_path: Path) -> None:
    with running("refuses", tmp_path) as pool:
        pool.thread.join(60)
        assert isinstance(pool.error, SettingsError)
        assert str(pool.error) == "slot 1: no such device"


@pytest.mark.parametrize("mode", ["unclean", "unclean, then signalled"])
def test_an_unclean_stop_is_reported(tmp_path: Path, mode: str) -> None:
    """Also if a signal during the exit replaces the exit code."""
    with running(mode, tmp_path) as pool:
        pool.wait_ready()
        error = pool.end()
    assert isinstance(error, Fatal)
    assert str(error) == "slot 0: could not drain"


def test_a_process_that_does_not_stop_in_time_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_MARGIN", 0.2)
    with running("deaf", tmp_path, shutdown_timeout=0.1) as pool:
        pool.wait_ready()
        assert "SIGKILL" in str(pool.end())


def test_processes_whose_loads_do_not_end_stop_cleanly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent would kill them after `shutdown_timeout`, and report that."""
    stuck = tmp_path / "stuck"
    entry = "from worker.pool.entry import main; sys.exit(main())"
    child = [sys.executable, "-c", STUCK_LOAD + entry, str(stuck)]
    monkeypatch.setitem(globals(), "program", lambda *_: child)
    with running("", tmp_path, **{"kafka.bootstrap_servers": "127.0.0.1:1"}) as pool:
        wait_until(stuck.exists, what="a load is stuck")
        assert pool.end() is None


# -- questions -----------------------------------------------------------------------------------


def test_one_of_the_processes_answers_a_question(tmp_path: Path) -> None:
    with running("obeys", tmp_path) as pool:
        pool.wait_ready()
        answer = pool.pool.ask_router.ask("hello").result(30)
        assert answer.said["label"] in ("slot 0", "slot 1")
        assert (answer.said["token_count"], answer.seconds) == (5, 0.5)
        with pytest.raises(Unanswerable, match=r"^it fails$"):
            pool.pool.ask_router.ask("strange").result(30)
        assert pool.pool.ask_router.ask("again").result(30)
        child = pool.pool._slots[0].child
        assert child is not None
        assert pool.end() is None
        assert not pool.pool.ask_router.ready
        with pytest.raises(Unanswerable, match="no process is free"):
            pool.pool.ask_router.ask("too late").result(0)
        with pytest.raises(Unanswerable, match="the process that was asked has ended"):
            child.ask("chosen a moment ago").result(0)


def test_a_question_to_a_process_that_ends_fails_and_goes_to_no_other(tmp_path: Path) -> None:
    """The text may be what ends it."""
    with running("obeys", tmp_path) as pool:
        pool.wait_ready()
        with pytest.raises(Unanswerable, match="the process that was asked has ended"):
            pool.pool.ask_router.ask("deadly").result(30)
        assert pool.pool.ask_router.ask("hello").result(30)
        wait_until(lambda: pool.value("streamlabel_process_restarts_total") == 1, what="a restart")
        pool.wait_ready()
        assert pool.pool.ask_router.ask("hello").result(30)
        assert pool.end() is None


def test_hung_processes_delay_no_one_and_their_late_answers_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even for a question that does not fit in a pipe that they do not read."""
    monkeypatch.setattr(classify, "MAX_CHARACTERS", LONG)
    monkeypatch.setattr(classify, "_MAX_BYTES", 2 * LONG)
    monkeypatch.setattr(classify, "ANSWER_TIMEOUT", 0.3)
    with running("obeys", tmp_path) as pool:
        pool.wait_ready()
        children = [slot.child for slot in pool.pool._slots if slot.child]
        for child in children:
            os.kill(child.pid, signal.SIGSTOP)
        with closing(
            HttpServer(
                HttpSettings(port=0), pool.pool.totals, pool.pool, pool.pool, pool.pool.ask_router
            )
        ) as server:
            for reason in ("no answer within 0.3 s", "no answer within 0.3 s", "no model is free"):
                status, body = post(server.port, "x" * LONG)
                assert (status, reason in body) == (503, True), body
            for child in children:
                os.kill(child.pid, signal.SIGCONT)
            wait_until(lambda: all(child.free for child in children), what="both have answered")
            monkeypatch.setattr(classify, "ANSWER_TIMEOUT", 30)
            status, body = post(server.port, "hello")
        assert (status, json.loads(body)["token_count"]) == (200, 5)
        assert pool.end() is None


def test_the_free_process_that_reported_last_is_asked() -> None:
    """A hung process counts as ready until its silence is long enough."""

    class FreeChild(FakeChild):
        free = True

    class ReadySlot:
        def __init__(self, child: FakeChild | None) -> None:
            self.child = child

        def ready(self) -> Verdict:
            return True, "running"

    first, last = FreeChild(7), FreeChild(9)
    children = (None, first, last, FreeChild(8))
    router = AskRouter([ReadySlot(child) for child in children])  # type: ignore[misc]
    assert router._choose() is last
    last.free = False
    assert router._choose() is not first


def test_a_stage_does_not_wait_for_the_parent_to_read_its_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The parent may hang with a full pipe. Once it reads again, it gets the answer at once."""
    monkeypatch.setattr(reports, "EVERY", 600)
    model, feeds = ObedientModel(), PageFeeds.on(HttpSettings(), clock)
    inlet, outlet = os.pipe()
    os.set_blocking(outlet, False)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(outlet, b"\n" * 4096)
    os.set_blocking(outlet, True)
    with os.fdopen(inlet, "rb") as pipe:
        reporter = Reporter(
            os.fdopen(outlet, "wb"), Metrics(), Progress(1, Metrics(), clock), feeds
        )
        with reporter:
            reporter.ask("hello")
            feeds.ask_queue.tokenise(model.aside)
            feeds.ask_queue.infer()
            assert pipe.read(filled).isspace()
            answers = (decode(line).answer for line in pipe)
            answer = next(filter(None, answers))
        assert isinstance(answer, Answer)
        assert answer.said["scores"] == [["POSITIVE", 0.75], ["NEGATIVE", 0.25]]
        assert answer.said["token_count"] == 5
        assert list(answers)[-1] is None


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_reason_of_a_process_has_no_text_of_an_unknown_error(*, wrapped: bool) -> None:
    """The parent passes it on to its platform; the text is in the log."""
    clock, (inlet, outlet) = HandClock(), os.pipe()
    fcntl.fcntl(outlet, fcntl.F_SETPIPE_SZ, 1 << 20)  # nobody reads before both reports are there
    error: Exception = ValueError("a post")
    if wrapped:
        error = StageCrashed.by(error, "the infer stage crashed")
    with os.fdopen(inlet, "rb") as pipe:
        reporter = Reporter(os.fdopen(outlet, "wb"), Metrics(), Progress(1, Metrics(), clock), None)
        with contextlib.suppress(type(error)), reporter:
            raise error
        reason = [decode(line).reason for line in pipe][-1]
    assert "ValueError" in reason
    assert "a post" not in reason


def test_an_incomplete_line_is_ignored() -> None:
    """The parent may be killed while it writes."""
    inlet, outlet = os.pipe()
    os.write(outlet, b"one\n\ntwo\nthr")
    os.close(outlet)
    assert list(_lines(inlet)) == [b"one", b"", b"two"]
    os.close(inlet)


# -- the pool's own health -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("live", "ready", "expected"),
    [
        ([True, True], [True, True], ((True, "slot 0: a, slot 1: b"), (True, "2 of 2 ready"))),
        (
            [True, True],
            [True, False],
            ((True, "slot 0: a, slot 1: b"), (True, "1 of 2 ready, slot 1: b")),
        ),
        (
            [True, False],
            [False, False],
            ((False, "slot 1: b"), (False, "0 of 2 ready, slot 0: a, slot 1: b")),
        ),
    ],
)
def test_a_pool_is_live_if_all_slots_are_and_ready_if_one_is(
    live: list[bool],
    ready: list[bool],
    expected: tuple[Verdict, Verdict],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = Pool(load({"processes": 2}, environ={}).settings, [], HandClock(), threading.Event())
    for slot, reason, is_live, is_ready in zip(pool._slots, "ab", live, ready, strict=True):
        monkeypatch.setattr(slot, "live", lambda v=(is_live, reason): v)
        monkeypatch.setattr(slot, "ready", lambda v=(is_ready, reason): v)
    assert (pool.live(), pool.ready()) == expected
    assert pool.totals.registry.get_sample_value("streamlabel_live") == expected[0][0]


# -- settings of a slot --------------------------------------------------------------------------


def test_slots_number_their_names_and_know_their_number() -> None:
    """Each takes its part of the cores and of the memory, unless `model.threads` is set."""
    settings = load({"processes": 3, "kafka.group_instance_id": "pod"}, environ={}).settings
    values = slot_settings(settings, 2)
    assert (values["kafka.group_instance_id"], values["kafka.client_id"]) == (
        "pod-2",
        "streamlabel-2",
    )
    loaded = load(values, environ={}).settings
    assert (loaded.processes, loaded.http.enabled, loaded.model.threads) == (3, False, None)


# -- processes that are killed -------------------------------------------------------------------


def test_a_kill_for_memory_explains_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counter has the kills of the whole cgroup, also those before the pool's start."""
    count = 4
    kills = MemoryKills(lambda: count)
    monkeypatch.setattr(memory_kills, "memory_limit", lambda: 2**29)
    assert kills.explanation().startswith("killed by SIGKILL: unless someone sent it")
    count = 6
    for _ in range(2):
        assert kills.explanation().startswith(
            "probably killed by the kernel for memory: limit 512 MiB"
        )
    assert kills.explanation().startswith("killed by SIGKILL: unless someone sent it")
    count, limit = 7, None
    monkeypatch.setattr(memory_kills, "memory_limit", lambda: limit)
    assert kills.explanation() == "probably killed by the kernel for memory: the machine ran out"


def test_a_kernel_that_counts_no_kills_explains_none() -> None:
    kills = MemoryKills(lambda: None)
    assert kills.explanation().startswith("killed by SIGKILL: unless someone sent it")


def test_a_process_that_the_kernel_kills_for_memory_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0
    monkeypatch.setattr(supervisor, "MemoryKills", lambda: MemoryKills(lambda: count))
    monkeypatch.setattr(memory_kills, "memory_limit", lambda: 2**30)
    with capture_logs() as logs, running("obeys", tmp_path) as pool:
        pool.wait_ready()
        child = pool.pool._slots[0].child
        assert child is not None
        count = 1  # as the kernel does, before the signal
        child.kill()
        wait_until(lambda: _reasons(logs), what="its end is logged")
        assert pool.end() is None
    (reason,) = _reasons(logs)
    assert reason.startswith("probably killed by the kernel for memory: limit 1,024 MiB")


def _reasons(logs: Sequence[Mapping[str, Any]]) -> list[str]:
    return [entry["reason"] for entry in logs if entry["event"] == "worker ended"]


def test_a_childs_settings_are_not_on_its_command_line() -> None:
    """Arguments are visible in `ps`, and the settings have secrets."""
    assert command()[4:] == sys.path


def test_the_parent_loads_neither_torch_nor_kafka() -> None:
    script = (
        "import sys, worker.cli.run, worker.http.server, worker.pool.supervisor\n"
        "heavy = {'torch', 'transformers', 'kafka'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
