"""The broker's objects, the values of a release, archives of images, waiting, and the command."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from tests.kube import cluster
from tests.kube.__main__ import main, missing
from tests.kube.cluster import Cluster, wait
from tests.kube.image import worker_in
from tests.kube.kafka import Kafka, objects
from tests.kube.release import Release, containers, merged
from tests.kube.verdicts import Failed


@pytest.mark.parametrize("thing", objects("here", "kafka.here.svc.cluster.local:9092", "/data"))
def test_the_broker_s_objects_are_valid(thing: dict[str, Any]) -> None:
    kubernetes_validate.validate(thing, "1.34", strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(thing | {"sepc": {}}, "1.34", strict=True)


def a_release() -> Release:
    nowhere = Cluster(Path("/nowhere"), Path("/nowhere/cluster"))
    kafka = Kafka(nowhere, "here")
    values = {"replicaCount": 1, "settings": {"cache": {"max_bytes": 0}}}
    return Release(nowhere, kafka, "registry:5000/streamlabel:mine", "name", "exactly_once", values)


def test_a_release_has_topics_and_a_group_of_its_own_and_its_values_win() -> None:
    values = a_release().all_values()
    assert values["replicaCount"] == 1
    assert values["image"]["repository"] == "registry:5000/streamlabel"
    assert values["image"]["tag"] == "mine"
    settings = values["settings"]
    assert settings["kafka"]["bootstrap_servers"] == "kafka.here.svc.cluster.local:9092"
    assert settings["kafka"]["group_id"] == "name"
    assert (settings["delivery"], settings["cache"]) == ("exactly_once", {"max_bytes": 0})
    assert settings["input"]["topic"] != settings["output"]["topic"]


def test_values_merge_map_by_map_and_change_nothing_given() -> None:
    low, high = {"a": {"b": 1, "c": [1]}, "d": 1}, {"a": {"c": [2]}, "d": {"e": 2}}
    assert merged(low, high) == {"a": {"b": 1, "c": [2]}, "d": {"e": 2}}
    assert low == {"a": {"b": 1, "c": [1]}, "d": 1}


def test_the_containers_of_pods_are_those_that_exist() -> None:
    pods: list[dict[str, Any]] = [
        {"status": {"containerStatuses": [{"containerID": "x"}, {"containerID": ""}]}},
        {"status": {}},
    ]
    assert containers(pods) == {"x"}


def archive(path: Path, *tags: str) -> Path:
    manifest = json.dumps([{"RepoTags": [tag]} for tag in tags] + [{"RepoTags": None}]).encode()
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("manifest.json")
        info.size = len(manifest)
        tar.addfile(info, io.BytesIO(manifest))
    return path


def test_the_worker_s_image_in_an_archive_is_the_one_beside_the_broker_s(tmp_path: Path) -> None:
    good = archive(tmp_path / "good.tar", "apache/kafka:4.3.1", "streamlabel:1")
    assert worker_in(good) == "streamlabel:1"
    for bad in ((), ("a:1", "b:1")):
        with pytest.raises(Failed, match=f"has {len(bad)} images"):
            worker_in(archive(tmp_path / "bad.tar", *bad))


def test_waiting_goes_on_after_a_failure_and_ends_with_the_last_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "_POLL_S", 0)
    answers = iter([Failed("the API server is away"), 0, "found"])

    def ask() -> Any:
        if isinstance(answer := next(answers), Failed):
            raise answer
        return answer

    assert wait("it is there", ask, 60) == "found"

    def never() -> Any:
        raise Failed("no route")

    with pytest.raises(Failed, match=r"it is there: not within 0.01 s \(no route\)"):
        wait("it is there", never, 0.01)


def test_what_a_program_said_is_the_failure(tmp_path: Path) -> None:
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text(
        '#!/bin/sh\n[ "$1" = fail ] && { echo "Error: no such pod" >&2; exit 1; }\ncat\n'
    )
    kubectl.chmod(0o755)
    here = Cluster(tmp_path, tmp_path / "cluster")
    assert here.kubectl("apply", given={"a": 1}) == '{"a": 1}'
    with pytest.raises(Failed, match=r"^kubectl fail: no such pod$"):
        here.kubectl("fail")


def test_the_command_says_why_it_is_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("KUBERNETES_HOME", "/no/such/folder")
    assert main(["--cluster", "/nowhere"]) == 0
    assert capsys.readouterr().out.startswith("kube: skipped: KUBERNETES_HOME names no folder")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert "x86-64 and Debian bookworm" in missing(None)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert missing(None) == "a cluster needs root"


def test_the_command_lists_the_scenarios(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert "rollout " in listed
    assert "at_least_once" in listed
