"""A secret that may have changed on one side changes on the other side too."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.chaos.administrator import Refused
from tests.chaos.agenda import Agenda
from tests.chaos.faults import Faults
from tests.chaos.plan import Fault
from tests.support.clocks import HandClock


def test_a_rotation_whose_first_answer_is_lost_is_finished() -> None:
    clock, happened = HandClock(), list[str]()
    security = SimpleNamespace(
        password="new",
        make_password=lambda: happened.append("made"),
        write_password=lambda: happened.append("written"),
    )

    def set_password(*_: object) -> None:
        happened.append("applied")
        if happened.count("applied") == 1:
            raise Refused("no answer in time")  # though the brokers have it

    cluster: Any = SimpleNamespace(bootstrap_servers="", kafka=None, wires=None, security=security)
    nothing: Any = None
    agenda = Agenda(clock)
    faults = Faults(cluster, nothing, nothing, agenda, nothing, nothing)
    faults._administrator = SimpleNamespace(set_password=set_password)  # type: ignore[assignment]
    assert faults.begin(Fault(0.0, "password_rotated", 0, 2.0, 0.0))
    assert not faults.begin(Fault(0.0, "password_rotated", 0, 2.0, 0.0))  # one at a time
    while not agenda.empty:
        clock.sleep(1)
        agenda.run_due()
    assert happened == ["made", "applied", "applied", "written"]
    assert not faults._renewing
