"""Computes each slot's settings.

Owns: nothing.
Thread: main, in the parent, once at start.
Must not import: kafka, torch, transformers.
"""

from __future__ import annotations

from typing import Any

from worker.settings import Settings, plain_values


def slot_settings(settings: Settings, slot: int) -> dict[str, Any]:
    """Return one slot's settings for `worker.settings.load`, with secrets in plain text.

    Names that must be unique in the group, or that tell its members apart, get the slot's number
    as a suffix. A restarted process has the same number, so it keeps its place in the group and its
    transactional id. `processes` stays, so that it takes its part of the cores and of the memory.
    """
    kafka, common = settings.kafka, plain_values(settings)
    own: dict[str, Any] = {
        "http.enabled": False,  # the parent serves it
        "kafka.client_id": f"{kafka.client_id}-{slot}",
    }
    if kafka.group_instance_id:
        own["kafka.group_instance_id"] = f"{kafka.group_instance_id}-{slot}"
    if settings.profile:
        own["profile"] = f"{settings.profile}.{slot}"
    return common | own
