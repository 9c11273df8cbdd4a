"""Computes each slot's settings, environment and part of the cores.

Owns: nothing.
Thread: main, in the parent, once at start.
Must not import: kafka, torch, transformers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.settings import Settings, child_environment, plain_values, read_environment

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2, as seen from inside a container


def slot_settings(settings: Settings, slot: int) -> dict[str, Any]:
    """Return one slot's settings for `worker.settings.load`, with secrets in plain text.

    Names that must be unique in the group, or that tell its members apart, get the slot's number
    as a suffix. A restarted process has the same number, so it keeps its place in the group and its
    transactional id.
    """
    kafka, common = settings.kafka, plain_values(settings)
    own: dict[str, Any] = {
        "processes": 1,
        "http.enabled": False,  # the parent serves it
        "kafka.client_id": f"{kafka.client_id}-{slot}",
        "model.threads": settings.model.threads or max(1, cores() // settings.processes),
    }
    if kafka.group_instance_id:
        own["kafka.group_instance_id"] = f"{kafka.group_instance_id}-{slot}"
    if settings.profile:
        own["profile"] = f"{settings.profile}.{slot}"
    return common | own


def slot_environment(values: Mapping[str, Any]) -> dict[str, str]:
    """Return one slot's environment, which bounds the tokenizer's threads.

    The tokenizer's library uses all cores unless RAYON_NUM_THREADS is set.
    """
    threads = read_environment("RAYON_NUM_THREADS") or str(values["model.threads"])
    return child_environment(RAYON_NUM_THREADS=threads)


def cores(quota: Path = _QUOTA) -> int:
    """Return how many cores this process may use: its CPU affinity, bounded by its cgroup quota."""
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no affinity
        usable = os.cpu_count() or 1
    try:
        allowed, period = quota.read_text(encoding="ascii").split()
        return max(1, min(usable, int(allowed) // int(period)))
    except (OSError, ValueError):  # no cgroup, or "max", which is no bound
        return usable
