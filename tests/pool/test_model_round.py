"""A pool changes its model one process after the other, and a restarted one keeps what it had.

The processes here are doubles that a test lets load, take over, fail and end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.clocks import HandClock
from worker.errors import ChangeUnderway
from worker.http.health import Verdict
from worker.http.model import ModelChange
from worker.metrics import PoolMetrics
from worker.pool.model_round import ModelRound
from worker.pool.orders import ModelOrders
from worker.pool.reports import ChildReport, decode
from worker.settings import Settings, load

READY: Verdict = (True, "running")
PATIENCE = 300  # seconds


def settings(name: str) -> Settings:
    return load({"processes": 3, "model.name": name}, environ={}).settings


class FakeProcess:
    """A process that obeys what a test makes it obey."""

    reason = "killed by signal 9 (Killed)"

    def __init__(self, pid: int, model: str) -> None:
        self.pid, self.orders = pid, list[Mapping[str, Any]]()
        self.report = ChildReport(READY, READY)
        self.tell(model)

    def order(self, order: Mapping[str, Any]) -> None:
        self.orders.append(order)

    def tell(self, model: str, outcome: str = "", why: str = "", **numbers: int) -> None:
        change = {"outcome": outcome, "reason": why} if outcome else None
        facts = {"name": model, "revision": "main", "weights_sha256": f"of {model}"}
        told = {"model": facts, "change": change, "begun": 0, "loaded": 0} | numbers
        self.report = decode(ChildReport(READY, READY, model=told).encode())

    @property
    def number(self) -> int:
        """The number of the last order to load."""
        numbers = [order["number"] for order in self.orders if "number" in order]
        return int(numbers[-1])

    def loads(self) -> None:
        self.tell("old", "loading", begun=self.number)

    def has_loaded(self) -> None:
        self.tell("old", "loading", begun=self.number, loaded=self.number)

    def ends(self, outcome: str, why: str = "", model: str = "new") -> None:
        self.tell(model, outcome, why, begun=self.number, loaded=self.number)


class FakeSlot:
    """A slot that keeps its process until a test takes it."""

    def __init__(self, number: int) -> None:
        self.number, self.settings = number, settings("old")
        self.child: Any = FakeProcess(100 + number, "old")
        self.is_ready = True

    def ready(self) -> Verdict:
        return self.is_ready, "warming"


class Pool:
    """Three slots and their round."""

    def __init__(self) -> None:
        self.slots = [FakeSlot(number) for number in range(3)]
        self.metrics, self.clock = PoolMetrics(), HandClock()
        self.round = ModelRound(self.slots, self.metrics, self.clock)  # type: ignore[arg-type]

    def request(self, name: str = "new") -> ModelChange:
        change = self.round.change(settings(name), "SIGHUP")
        self.round.step()
        return change

    def step(self) -> None:
        self.round.step()

    def takes_over(self, number: int) -> None:
        """Let one process load the model and take it over."""
        child = self.slots[number].child
        child.has_loaded()
        self.step()
        assert child.orders[-1] == {"take_over": child.number}
        child.ends("changed")
        self.step()
        self.step()

    def ordered(self) -> list[int]:
        return [slot.number for slot in self.slots if slot.child and slot.child.orders]

    def models(self) -> list[str]:
        """Return the models that the slots' next processes start with."""
        return [slot.settings.model.name for slot in self.slots]

    @property
    def change(self) -> Any:
        return self.round.state()["change"]

    def shown(self) -> set[tuple[str, str]]:
        (family,) = self.metrics.process_model.collect()
        return {(s.labels["slot"], s.labels["model"]) for s in family.samples if s.value == 1}


@pytest.fixture
def pool() -> Pool:
    return Pool()


def test_one_process_changes_after_the_other(pool: Pool) -> None:
    """The order has the settings of the model alone."""
    began = pool.request()
    assert (began.outcome, began.name) == ("loading", "new")
    for number in range(3):
        assert pool.ordered() == list(range(number + 1))
        order = pool.slots[number].child.orders[0]
        assert (order["trigger"], order["model"]) == ("SIGHUP", {"model.name": "new"})
        pool.takes_over(number)
    assert pool.models() == ["new"] * 3
    assert (pool.change["outcome"], pool.change["reason"]) == ("changed", "")
    assert pool.round.settings.model.name == "new"
    assert pool.shown() == {("0", "new"), ("1", "new"), ("2", "new")}


def test_the_next_process_begins_when_all_are_ready(pool: Pool) -> None:
    pool.slots[2].is_ready = False
    pool.request()
    assert pool.ordered() == []
    pool.slots[2].is_ready = True
    pool.step()
    pool.slots[0].is_ready = False
    pool.takes_over(0)
    assert pool.ordered() == [0]
    pool.slots[0].is_ready = True
    pool.step()
    assert pool.ordered() == [0, 1]


def test_a_process_that_does_not_become_ready_ends_the_round(pool: Pool) -> None:
    """The message names it; the next request is taken."""
    pool.request()
    pool.slots[2].is_ready = False
    pool.takes_over(0)
    pool.clock.sleep(PATIENCE - 1)
    pool.step()
    assert pool.change["outcome"] == "loading"
    pool.clock.sleep(1)
    with capture_logs() as logs:
        pool.step()
    assert pool.change["outcome"] == "failed"
    assert pool.change["reason"] == (
        "slot 2 is not ready after 300 s: warming; repeat the request once it is (slots 1, 2 keep "
        "the model they had; slots 0 have the new one)"
    )
    assert [line["log_level"] for line in logs] == ["error"]
    pool.slots[2].is_ready = True
    pool.step()
    assert pool.ordered() == [0]
    assert pool.request("third").outcome == "loading"
    assert pool.slots[0].child.orders[-1]["model"] == {"model.name": "third"}


def test_each_wait_for_ready_processes_has_the_whole_time(pool: Pool) -> None:
    pool.slots[2].is_ready = False
    pool.request()
    pool.clock.sleep(PATIENCE - 1)
    pool.slots[2].is_ready = True
    pool.step()
    pool.slots[0].is_ready = False
    pool.takes_over(0)
    pool.clock.sleep(PATIENCE - 1)
    pool.step()
    assert pool.change["outcome"] == "loading"


def test_a_model_takes_over_only_where_a_successor_would_start_with_it(pool: Pool) -> None:
    pool.request()
    child = pool.slots[0].child
    child.loads()
    pool.step()
    assert (len(child.orders), pool.models()[0]) == (1, "old")
    child.has_loaded()
    pool.step()
    pool.step()
    assert (len(child.orders), pool.models()[0]) == (2, "new")


def test_a_process_that_ends_while_it_loads_stops_the_round_and_starts_with_the_old_model(
    pool: Pool,
) -> None:
    pool.request()
    pool.takes_over(0)
    pool.slots[1].child.loads()
    pool.slots[1].child = None
    pool.step()
    assert pool.models() == ["new", "old", "old"]
    assert pool.change["outcome"] == "failed"
    assert pool.change["reason"] == (
        "slot 1: it ended meanwhile: killed by signal 9 (Killed) (slots 1, 2 keep the model they "
        "had; slots 0 have the new one)"
    )
    pool.slots[1].child = FakeProcess(201, "old")
    pool.step()
    assert pool.ordered() == [0], "the round has ended"


def test_a_process_that_ends_after_it_was_allowed_starts_with_the_new_model(pool: Pool) -> None:
    """It may have labelled with it, so the round goes on once its successor is ready."""
    pool.request()
    pool.slots[0].child.has_loaded()
    pool.step()
    pool.slots[0].child, pool.slots[0].is_ready = None, False
    pool.step()
    assert pool.models() == ["new", "old", "old"]
    assert pool.ordered() == []
    pool.slots[0].child, pool.slots[0].is_ready = FakeProcess(200, "new"), True
    pool.step()
    assert pool.ordered() == [1]


def test_the_last_report_of_a_process_that_has_ended_counts(pool: Pool) -> None:
    pool.request()
    child = pool.slots[0].child
    child.has_loaded()
    pool.step()
    child.ends("changed")
    pool.slots[0].child, pool.slots[0].is_ready = None, False
    pool.step()
    assert pool.models()[0] == "new"
    assert pool.change["outcome"] == "loading"


@pytest.mark.parametrize("outcome", ["failed", "refused"])
@pytest.mark.parametrize("loaded", [False, True])
def test_a_failure_stops_the_round_and_says_who_has_which_model(
    pool: Pool, outcome: str, *, loaded: bool
) -> None:
    pool.request()
    child = pool.slots[0].child
    if loaded:
        child.has_loaded()
        pool.step()
    child.ends(outcome, "no such folder", model="old")
    pool.step()
    pool.step()
    assert pool.models() == ["old"] * 3
    assert pool.change["outcome"] == outcome
    assert pool.change["reason"] == (
        "slot 0: no such folder (slots 0, 1, 2 keep the model they had)"
    )
    assert pool.ordered() == [0]


def test_a_request_after_a_failed_round_completes_it(pool: Pool) -> None:
    pool.request()
    pool.takes_over(0)
    pool.slots[1].child.ends("failed", "full disk", model="old")
    pool.step()
    assert pool.round.state()["model"] is None, "there are two"
    assert pool.shown() == {("0", "new"), ("1", "old"), ("2", "old")}
    pool.request()
    pool.slots[0].child.ends("unchanged", "it is in use")
    pool.step()
    pool.step()
    pool.takes_over(1)
    pool.takes_over(2)
    assert pool.change["outcome"] == "changed"
    assert pool.round.state()["model"]["name"] == "new"


def test_the_same_model_again_changes_nothing(pool: Pool) -> None:
    pool.request("old")
    for slot in pool.slots:
        slot.child.ends("unchanged", "it is in use", model="old")
        pool.step()
        pool.step()
    assert (pool.change["outcome"], pool.change["reason"]) == ("unchanged", "it is in use")


def test_one_change_at_a_time(pool: Pool) -> None:
    pool.request()
    with pytest.raises(ChangeUnderway, match="a change to new, requested by SIGHUP, is under way"):
        pool.request("third")
    pool.round.refuse("POST /model", "no such setting")
    assert pool.change["outcome"] == "loading"


def test_a_request_that_cannot_be_read_is_shown(pool: Pool) -> None:
    pool.round.refuse("SIGHUP", "model.nam: no such setting")
    assert (pool.change["outcome"], pool.change["trigger"]) == ("refused", "SIGHUP")
    assert pool.request().outcome == "loading"


def test_every_process_is_listed_also_one_that_waits_to_restart(pool: Pool) -> None:
    pool.slots[1].child = None
    pool.step()
    first, second, _ = pool.round.state()["processes"]
    assert (first["slot"], first["pid"], first["model"]["name"]) == (0, 100, "old")
    assert (second["slot"], second["pid"], second["model"]) == (1, None, None)
    assert pool.shown() == {("0", "old"), ("2", "old")}


# -- the child's side ----------------------------------------------------------------------------


class FakeChanges:
    """The model of a worker that takes over when it may."""

    def __init__(self) -> None:
        self.permit = lambda: True
        self.asked: list[tuple[str, str]] = []
        self.refused: list[tuple[str, str]] = []

    @property
    def settings(self) -> Settings:
        return settings("old")

    def change(self, wanted: Settings, trigger: str) -> ModelChange:
        if wanted.model.name == "busy":
            raise ChangeUnderway("another is under way")
        self.asked.append((wanted.model.name, trigger))
        return ModelChange(trigger, wanted.model.name, None, "loading", 0)

    def refuse(self, trigger: str, reason: str) -> None:
        self.refused.append((trigger, reason))

    def state(self) -> dict[str, Any]:
        return {"model": None, "change": len(self.asked)}


class Orders:
    """The orders of a child whose other settings have a client id."""

    def __init__(self) -> None:
        self.changes, self.wakes = FakeChanges(), 0
        values = {"kafka.client_id": "mine", "model.name": "old", "model.revision": "v1"}
        self.orders = ModelOrders(values, self.changes, self._wake)

    def _wake(self) -> None:
        self.wakes += 1

    def load(self, number: int, name: str = "new") -> None:
        self.orders.obey({"number": number, "trigger": "SIGHUP", "model": {"model.name": name}})


def test_a_loaded_model_waits_for_the_second_order() -> None:
    one = Orders()
    one.load(7)
    assert one.changes.asked == [("new", "SIGHUP")]
    assert one.orders.state() == {"model": None, "change": 1, "begun": 7, "loaded": 0}
    assert not one.changes.permit()
    assert not one.changes.permit()
    assert (one.wakes, one.orders.state()["loaded"]) == (1, 7)
    one.orders.obey({"take_over": 7})
    assert one.changes.permit()
    one.load(8)
    assert not one.changes.permit()


@pytest.mark.parametrize(
    ("model", "reason"),
    [({"model.dtype": "int3"}, "model.dtype"), ({"model.name": "busy"}, "another is under way")],
)
def test_an_order_that_cannot_be_begun_is_refused(model: dict[str, str], reason: str) -> None:
    one = Orders()
    one.orders.obey({"number": 3, "trigger": "POST /model", "model": model})
    ((trigger, told),) = one.changes.refused
    assert trigger == "POST /model"
    assert reason in told
    assert one.orders.state()["begun"] == 3


def test_an_order_replaces_the_model_and_no_other_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    one, seen = Orders(), list[Settings]()
    monkeypatch.setattr(one.changes, "change", lambda wanted, _: seen.append(wanted))
    one.load(1)
    (wanted,) = seen
    assert (wanted.kafka.client_id, wanted.model.name, wanted.model.revision) == (
        "mine",
        "new",
        None,
    )
