"""What each slot of a pool is given: its settings, and its part of the cores.

Read once, on the parent's main thread. Imports the ground floor.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.settings import Settings, child_environment, plain_values, read_environment

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2, as a container sees its own


def slot_settings(settings: Settings, slot: int) -> dict[str, Any]:
    """One slot's settings as `worker.settings.load` takes them, secrets in the clear.

    Names that must be unique in the group or tell members apart get the slot's number: it stays
    the same over restarts, and with it the place in the group and the transactional id.
    """
    kafka, given = settings.kafka, plain_values(settings)
    own: dict[str, Any] = {
        "processes": 1,
        "http.enabled": False,  # the parent's
        "kafka.client_id": f"{kafka.client_id}-{slot}",
        "model.threads": settings.model.threads or max(1, cores() // settings.processes),
    }
    if kafka.group_instance_id:
        own["kafka.group_instance_id"] = f"{kafka.group_instance_id}-{slot}"
    return given | own


def slot_environment(given: Mapping[str, Any]) -> dict[str, str]:
    """Its environment: the tokenizer's library takes all cores, unless a variable says otherwise."""
    threads = read_environment("RAYON_NUM_THREADS") or str(given["model.threads"])
    return child_environment(RAYON_NUM_THREADS=threads)


def cores(quota: Path = _QUOTA) -> int:
    """How many cores this process may use: its affinity, and less where a cgroup allows less."""
    try:
        mine = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no affinity
        mine = os.cpu_count() or 1
    try:
        allowed, period = quota.read_text(encoding="ascii").split()
        return max(1, min(mine, int(allowed) // int(period)))
    except (OSError, ValueError):  # no cgroup, or "max": no bound
        return mine
