"""A pool's parent: when it starts a process again, when it gives up, how all end together.

The processes here are small programs that speak the protocol and do nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.clocks import HandClock
from tests.support.sites import post
from tests.support.workers import ObedientModel, clock, wait_until
from worker.core.records import Prediction
from worker.errors import Fatal, SettingsError
from worker.http import classify
from worker.http.ask import Answer, Unanswerable
from worker.http.feeds import PageFeeds
from worker.http.health import Verdict
from worker.http.server import HttpServer
from worker.metrics import Metrics
from worker.pool import reports, shares, slot, supervisor
from worker.pool.ask import PoolAskQueue
from worker.pool.child import Child, command
from worker.pool.entry import _lines
from worker.pool.reports import ChildReport, Reporter, decode
from worker.pool.shares import cores, slot_settings
from worker.pool.slot import GIVE_UP_AT, RAN_WELL, Slot
from worker.pool.supervisor import Pool
from worker.runtime.progress import Progress
from worker.settings import HttpSettings, load

READY = ChildReport((True, "running"), (True, "running"))
LONG = 300_000  # characters, more than a pipe holds

# -- a slot ----------------------------------------------------------------------------------------


class FakeChild(Child):
    """Ends when the test says so."""

    def __init__(self, heard_at: float) -> None:
        self.pid, self.code, self.words = 1, None, "no reason"
        self.report, self.heard_at = None, heard_at

    def poll(self) -> int | None:
        return self.code

    @property
    def reason(self) -> str:
        return self.words


class OneSlot:
    """A slot, its processes, and what it was told to wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = HandClock()
        self.started: list[FakeChild] = []
        self.ends = self.restarts = 0
        self.attempts: list[int] = []
        monkeypatch.setattr(slot, "backoff", self._backoff)
        self.slot = Slot(
            3,
            start=self._start,
            on_end=self._end,
            on_restart=self._restart,
            silence=20,
            clock=self.clock,
        )

    def _start(self) -> FakeChild:
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
        """One life, from the start to the end."""
        self.slot.step()
        child = self.started[-1]
        child.report = report
        self.slot.step()
        self.clock.sleep(seconds)
        child.code = code
        self.slot.step()

    def wait(self) -> None:
        """Until it may start again, and not before."""
        number = len(self.started)
        self.slot.step()
        assert len(self.started) == number
        self.clock.sleep(self.attempts[-1] * 0.5)


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> OneSlot:
    return OneSlot(monkeypatch)


def test_the_wait_grows_from_end_to_end_and_is_short_again_after_a_good_run(one: OneSlot) -> None:
    for _ in range(3):
        one.live_for(1, 1)
        one.wait()
    one.live_for(RAN_WELL, 1, READY)
    one.wait()
    one.live_for(1, 1, READY)
    assert one.attempts == [1, 2, 3, 1, 2]
    assert (one.ends, one.restarts) == (5, 4)


@pytest.mark.parametrize("code", [0, 1, -9])
def test_any_end_that_was_not_asked_for_is_followed_by_another_start(
    one: OneSlot, code: int
) -> None:
    one.live_for(1, code)
    assert one.slot.live() == (True, "waits to be started again")
    assert not one.slot.ready()[0]
    one.wait()
    one.slot.step()
    assert len(one.started) == 2


@pytest.mark.parametrize("report", [None, READY])
def test_a_crash_loop_ends_the_pool_with_the_last_reason(
    one: OneSlot, report: ChildReport | None
) -> None:
    for _ in range(GIVE_UP_AT - 1):
        one.live_for(RAN_WELL - 1, 1, report)
        one.wait()
    one.slot.step()
    one.started[-1].words = "no model there"
    with pytest.raises(Fatal, match=r"slot 3 ended 5 times in a row .* no model there"):
        one.live_for(0, 1)


def test_settings_that_one_refuses_are_tried_no_more(one: OneSlot) -> None:
    one.slot.step()
    one.started[0].words = "no such device"
    with pytest.raises(SettingsError, match="slot 3: no such device"):
        one.live_for(0, 2)


def test_health_is_what_the_process_says_of_itself(one: OneSlot) -> None:
    one.slot.step()
    assert (one.slot.live(), one.slot.ready()) == ((True, "starting"), (False, "starting"))
    one.started[0].report = ChildReport((True, "warming"), (False, "warming"))
    assert (one.slot.live(), one.slot.ready()) == ((True, "warming"), (False, "warming"))
    one.started[0].report = ChildReport((False, "infer holds 5"), (True, "running"))
    assert (one.slot.live(), one.slot.ready()) == ((False, "infer holds 5"),) * 2


def test_a_process_that_says_nothing_any_more_is_red(one: OneSlot) -> None:
    one.slot.step()
    one.started[0].report = READY
    one.clock.sleep(21)
    assert one.slot.live() == (False, "has not reported for 21 s")
    assert not one.slot.ready()[0]


# -- processes ---------------------------------------------------------------------------------------

PROGRAM = """
import json, os, signal, sys, time
order = json.loads(sys.stdin.readline())
slot, given = order["slot"], order["settings"]
mode, home = sys.argv[1], sys.argv[2]
lives = os.path.join(home, f"lives-{slot}")
with open(lives, "a") as file:
    file.write("x")
life = os.path.getsize(lives)
words = given["kafka.client_id"] + " " + os.environ["RAYON_NUM_THREADS"]
def say(published=0, reason="", answer=None):
    samples = [["streamlabel_records_published_total", {}, published, None]]
    family = ["streamlabel_records_published", "Help.", "counter", "", samples]
    line = {"live": [True, words], "ready": [True, words], "metrics": [family], "reason": reason}
    line["posts"] = [{"id": f"{slot}-{n}", "at": 2 * n + slot} for n in range(9) if order["page"]]
    line["answer"] = answer
    print(json.dumps(line), flush=True)
def stop(number, frame):
    bad = slot == 0 and mode.startswith("unclean")
    say(10, "could not drain" if bad else "")
    if mode == "unclean, then signalled":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    sys.exit(bad)
signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "deaf" else stop)
if mode == "refuses" and slot == 1:
    say(0, "no such device")
    sys.exit(2)
say(10 if life == 1 else 1)
for line in sys.stdin:
    text = json.loads(line)["text"]
    if text == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    prediction = {"probabilities": [1.0], "token_count": len(text), "truncated": False}
    told = {"labels": [f"slot {slot}"], "prediction": prediction, "seconds": 0.5}
    say(answer="it fails" if text == "strange" else told)
while mode == "deaf":
    time.sleep(0.05)
"""


class RunningPool:
    """A pool on a thread of its own; `error` is what it ended with."""

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


def test_all_run_with_their_own_names_and_end_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    with running("obeys", tmp_path) as pool:
        pool.wait_ready()
        assert pool.pool.live() == (True, "slot 0: streamlabel-0 3, slot 1: streamlabel-1 3")
        assert pool.end() is None
    assert pool.value("streamlabel_records_published_total") == 20


def test_the_page_of_a_pool_shows_the_last_posts_of_all(tmp_path: Path) -> None:
    with running("obeys", tmp_path) as pool:
        pool.wait_ready()
        found = [post["id"] for post in pool.pool.latest()]
        assert found == [f"{slot}-{n}" for n in range(8, 4, -1) for slot in (1, 0)]
        assert pool.end() is None


def test_without_a_page_no_process_keeps_posts(tmp_path: Path) -> None:
    with running("obeys", tmp_path, **{"http.enabled": False}) as pool:
        pool.wait_ready()
        assert not pool.pool.latest()
        assert pool.end() is None


def test_a_process_that_is_killed_is_started_again_and_its_counts_stay(tmp_path: Path) -> None:
    with running("obeys", tmp_path) as pool:
        pool.wait_ready()
        seen = [pool.value("streamlabel_records_published_total")]
        child = pool.pool._slots[1].child
        assert child is not None
        child.kill()

        def again() -> bool:
            seen.append(pool.value("streamlabel_records_published_total"))
            return seen[-1] == 21

        wait_until(again, what="the second life has counted")
        assert seen == sorted(seen)
        assert seen[0] == 20
        assert pool.value("streamlabel_process_restarts_total") == 1
        assert pool.end() is None


def test_one_that_refuses_its_settings_ends_the_others(tmp_path: Path) -> None:
    with running("refuses", tmp_path) as pool:
        pool.thread.join(60)
        assert isinstance(pool.error, SettingsError)
        assert str(pool.error) == "slot 1: no such device"


@pytest.mark.parametrize("mode", ["unclean", "unclean, then signalled"])
def test_an_end_that_was_not_clean_is_told(tmp_path: Path, mode: str) -> None:
    """Also where a signal finds it on its way out, and takes the place of its exit code."""
    with running(mode, tmp_path) as pool:
        pool.wait_ready()
        error = pool.end()
    assert isinstance(error, Fatal)
    assert str(error) == "slot 0: could not drain"


def test_one_that_does_not_end_in_time_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_MARGIN", 0.2)
    with running("deaf", tmp_path, shutdown_timeout=0.1) as pool:
        pool.wait_ready()
        assert "SIGKILL" in str(pool.end())


# -- the box ---------------------------------------------------------------------------------------


def test_one_of_the_processes_answers_what_is_asked(tmp_path: Path) -> None:
    with running("obeys", tmp_path) as pool:
        assert not pool.pool.box.ready
        with pytest.raises(Unanswerable, match="no process is free"):
            pool.pool.box.ask("too early").result(0)
        pool.wait_ready()
        answer = pool.pool.box.ask("hello").result(30)
        assert answer.labels in (("slot 0",), ("slot 1",))
        assert answer.prediction == Prediction((1.0,), 5, truncated=False)
        with pytest.raises(Unanswerable, match=r"^it fails$"):
            pool.pool.box.ask("strange").result(30)
        assert pool.pool.box.ask("again").result(30)
        child = pool.pool._slots[0].child
        assert child is not None
        assert pool.end() is None
        assert not pool.pool.box.ready
        with pytest.raises(Unanswerable, match="the process that was asked has ended"):
            child.ask("chosen a moment ago").result(0)


def test_who_asked_a_process_that_ends_is_told_and_no_other_one_is_asked(tmp_path: Path) -> None:
    """It may be the text that ends it."""
    with running("obeys", tmp_path) as pool:
        pool.wait_ready()
        with pytest.raises(Unanswerable, match="the process that was asked has ended"):
            pool.pool.box.ask("deadly").result(30)
        assert pool.pool.box.ask("hello").result(30)
        wait_until(lambda: pool.value("streamlabel_process_restarts_total") == 1, what="a restart")
        pool.wait_ready()
        assert pool.pool.box.ask("hello").result(30)
        assert pool.end() is None


def test_processes_that_stand_still_hold_nobody_up_and_answer_too_late_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is asked, and though nothing is taken off their pipes."""
    monkeypatch.setattr(classify, "CHARACTERS", LONG)
    monkeypatch.setattr(classify, "_BYTES", 2 * LONG)
    monkeypatch.setattr(classify, "ANSWER_WITHIN", 0.3)
    with running("obeys", tmp_path) as pool:
        pool.wait_ready()
        children = [one.child for one in pool.pool._slots if one.child]
        for child in children:
            os.kill(child.pid, signal.SIGSTOP)
        with closing(
            HttpServer(HttpSettings(port=0), pool.pool.totals, pool.pool, pool.pool, pool.pool.box)
        ) as server:
            for words in ("no answer within 0.3 s", "no answer within 0.3 s", "no model is free"):
                status, said = post(server.port, "x" * LONG)
                assert (status, words in said) == (503, True), said
            for child in children:
                os.kill(child.pid, signal.SIGCONT)
            wait_until(lambda: all(child.free for child in children), what="both have answered")
            status, said = post(server.port, "hello")
        assert (status, json.loads(said)["token_count"]) == (200, 5)
        assert pool.end() is None


def test_of_those_that_are_free_the_one_that_spoke_last_is_asked() -> None:
    """One that stands still is ready by its last report until it was silent for long."""

    class Spoke(FakeChild):
        free = True

    class Ready:
        def __init__(self, child: FakeChild | None) -> None:
            self.child = child

        def ready(self) -> Verdict:
            return True, "running"

    first, last = Spoke(7), Spoke(9)
    box = PoolAskQueue([Ready(None), Ready(first), Ready(last), Ready(Spoke(8))])  # type: ignore[list-item]
    assert box._first() is last
    last.free = False
    assert box._first() is not first


def test_a_stage_that_answers_does_not_wait_for_the_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The parent may stand still, with its pipe full. Once that is read the answer comes at once."""
    monkeypatch.setattr(reports, "EVERY", 600)
    model, feeds = ObedientModel(), PageFeeds.on(HttpSettings(), clock)
    feeds.open(model, model)
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
            reporter.hear(b'{"text": "hello"}')
            feeds.box.tokenise()
            feeds.box.infer()
            assert pipe.read(filled).isspace()
            told = (decode(line).answer for line in pipe)
            answer = next(filter(None, told))
        assert isinstance(answer, Answer)
        assert answer.prediction == Prediction((0.25, 0.75), 5, truncated=False)
        assert list(told)[-1] is None


def test_a_line_without_an_end_is_not_heard() -> None:
    """The parent was killed while it wrote."""
    inlet, outlet = os.pipe()
    os.write(outlet, b"one\n\ntwo\nthr")
    os.close(outlet)
    assert list(_lines(inlet)) == [b"one", b"", b"two"]
    os.close(inlet)


# -- the pool's own health ----------------------------------------------------------------------------


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
def test_one_red_slot_makes_the_pool_red_and_one_ready_makes_it_ready(
    live: list[bool],
    ready: list[bool],
    expected: tuple[Verdict, Verdict],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = Pool(load({"processes": 2}, environ={}).settings, [], HandClock(), threading.Event())
    for one, words, is_live, is_ready in zip(pool._slots, "ab", live, ready, strict=True):
        monkeypatch.setattr(one, "live", lambda v=(is_live, words): v)
        monkeypatch.setattr(one, "ready", lambda v=(is_ready, words): v)
    assert (pool.live(), pool.ready()) == expected
    assert pool.totals.registry.get_sample_value("streamlabel_live") == expected[0][0]


# -- what each is given -------------------------------------------------------------------------------


def test_the_cores_are_divided_and_names_are_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "cores", lambda: 8)
    settings = load({"processes": 3, "kafka.group_instance_id": "pod"}, environ={}).settings
    given = slot_settings(settings, 2)
    assert given["model.threads"] == 2
    assert (given["kafka.group_instance_id"], given["kafka.client_id"]) == (
        "pod-2",
        "streamlabel-2",
    )
    own = load(given, environ={}).settings
    assert (own.processes, own.http.enabled) == (1, False)


@pytest.mark.parametrize(("threads", "processes", "each"), [(None, 9, 1), (4, 9, 4)])
def test_each_has_a_thread_at_least_and_what_is_set_is_kept(
    monkeypatch: pytest.MonkeyPatch, threads: int | None, processes: int, each: int
) -> None:
    monkeypatch.setattr(shares, "cores", lambda: 8)
    flags = {"processes": processes, "model.threads": threads}
    assert slot_settings(load(flags, environ={}).settings, 0)["model.threads"] == each


@pytest.mark.parametrize(
    ("content", "allowed"), [("100000 100000\n", 1), ("50000 100000\n", 1), ("max 100000\n", None)]
)
def test_a_quota_bounds_the_cores(tmp_path: Path, content: str, allowed: int | None) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(content)
    assert cores(quota) == (allowed or cores(tmp_path / "none"))


def test_a_worker_s_settings_are_not_on_its_command_line() -> None:
    """Arguments show in `ps`, and secrets are among the settings."""
    assert command()[4:] == sys.path


def test_the_parent_loads_neither_torch_nor_kafka() -> None:
    script = (
        "import sys, worker.cli.run, worker.http.server, worker.pool.supervisor\n"
        "heavy = {'torch', 'transformers', 'kafka'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
