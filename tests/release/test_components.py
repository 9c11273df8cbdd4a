"""Lists of components are valid CycloneDX and name what is installed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.release import sbom

DOCUMENT: dict[str, Any] = {
    "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
    "bomFormat": "CycloneDX",
    "specVersion": "1.6",
    "version": 1,
    "metadata": {"component": {"type": "application", "name": "streamlabel", "version": "0.1.0"}},
    "components": [
        {"type": "library", "name": "kafka_python", "version": "3.0.12", "bom-ref": "kafka"}
    ],
}
WANTED = {"streamlabel": "0.1.0", "kafka-python": "3.0.12"}


@pytest.fixture(autouse=True)
def _installed() -> None:
    pytest.importorskip("cyclonedx", reason="cyclonedx-bom is not installed")


def test_a_complete_list_has_no_fault() -> None:
    assert list(sbom.faults(DOCUMENT, WANTED)) == []


def test_what_is_missing_or_of_another_version_is_found() -> None:
    found = list(sbom.faults(DOCUMENT, {**WANTED, "torch": "2.13.0", "kafka-python": "3.0.13"}))
    assert found == ["it has kafka-python 3.0.12, not 3.0.13", "it lacks torch"]


def test_a_list_that_is_not_valid_is_found() -> None:
    (found,) = sbom.faults(DOCUMENT | {"components": [{"type": "gadget", "name": "x"}]}, {})
    assert found.startswith("it does not follow CycloneDX 1.6")
