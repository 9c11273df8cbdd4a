"""The parts of scenarios that need no cluster: their checks, and the values that they install."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kube.cluster import Cluster
from tests.kube.kafka import Kafka
from tests.kube.release import Observed, Release, Values, merged
from tests.kube.scenarios import causes, loops, refused
from tests.kube.scenarios.keda import require_lag_was_left
from tests.kube.scenarios.planned import require_members
from tests.kube.verdicts import Failed, Tally
from tests.support.charts import needs_helm, render

UUID = "0c8a8d3e-4f5b-4c0e-9d49-2b1f6a7c3d5e"
WANTED = ["x-0-0", "x-0-1"]
MEMBERS = [f"{name}-{UUID}" for name in WANTED]
INSTALLED: dict[str, Values] = {
    **{name: merged(causes.ONE, values) for name, values in causes.faults().items()},
    "loop": merged(loops.ONE, loops.TOO_SMALL),
    "all": refused.ALL,
    "login": refused.LOGIN,
}


def test_the_static_members_of_a_pod_with_two_processes() -> None:
    assert require_members(MEMBERS, WANTED)


@pytest.mark.parametrize(
    "members",
    [
        [],
        MEMBERS[:1],
        [f"x-0-{UUID}", f"x-1-{UUID}"],  # one process a pod
        [*MEMBERS, f"x-2-{UUID}"],  # one of before is left
        [MEMBERS[0], MEMBERS[0]],
    ],
)
def test_other_members_are_a_failure(members: list[str]) -> None:
    with pytest.raises(Failed, match=r"not x-0-0, x-0-1$"):
        require_members(members, WANTED)


def test_an_outage_without_lag_proves_nothing() -> None:
    require_lag_was_left(Observed(Tally(), results=1))
    with pytest.raises(Failed, match="no record was left"):
        require_lag_was_left(Observed(Tally(), results=0))


def test_the_objects_that_are_left_are_named() -> None:
    assert refused.nothing_left(set())
    with pytest.raises(Failed, match=r"^configmap/a, pod/b$"):
        refused.nothing_left({"pod/b", "configmap/a"})


def all_values(name: str) -> Values:
    nowhere = Cluster(Path("/nowhere"), Path("/nowhere/cluster"))
    values = INSTALLED[name]
    return Release(nowhere, Kafka(nowhere, "here"), "worker:1", name, values=values).all_values()


@pytest.mark.parametrize("name", INSTALLED)
def test_no_request_is_above_its_limit(name: str) -> None:
    """The API server refuses such a pod, so that another fault than the meant one is shown."""
    resources = all_values(name)["resources"]
    assert mebibytes(resources["requests"]["memory"]) <= mebibytes(resources["limits"]["memory"])


def mebibytes(quantity: str) -> float:
    units = {"Mi": 1, "Gi": 1024}
    return float(quantity[:-2]) * units[quantity[-2:]]


@needs_helm
@pytest.mark.parametrize("name", INSTALLED)
def test_the_chart_accepts_the_values(name: str, tmp_path: Path) -> None:
    kinds = {manifest["kind"] for manifest in render(tmp_path, all_values(name))}
    wanted = {"login": "TriggerAuthentication", "all": "ScaledObject"}
    assert {"Deployment", wanted.get(name, "ConfigMap")} <= kinds
