"""The cores and the memory that a process may use, read from files as the kernel has them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from worker import limits
from worker.limits import (
    CpuLimit,
    as_mib,
    cores,
    cpu_limit,
    may_swap,
    memory_limit,
    oom_kills,
    own_memory,
)

UNLIMITED_V1 = "9223372036854771712"  # the largest number of pages, in bytes

# As the kernel writes them: a container with cgroups v1 (Docker, or a kubelet), which has no
# namespace of cgroups.
V1 = {
    "proc/self/cgroup": "9:name=systemd:/docker/4f\n4:memory:/docker/4f\n1:cpu,cpuacct:/docker/4f\n0::/docker/4f\n",
    "proc/self/mountinfo": (
        "637 636 0:215 / /sys/fs/cgroup rw,nosuid - tmpfs tmpfs rw,mode=755\n"
        "638 637 0:29 /docker/4f /sys/fs/cgroup/cpu,cpuacct ro,relatime master:11 - cgroup cgroup rw,cpu,cpuacct\n"
        "676 637 0:32 /docker/4f /sys/fs/cgroup/memory ro,relatime - cgroup cgroup rw,memory\n"
    ),
}
# A container with cgroups v2 in a namespace of its own.
V2 = {
    "proc/self/cgroup": "0::/\n",
    "proc/self/mountinfo": "31 23 0:27 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n",
}
# A service of systemd on a machine with v2, three groups deep.
NESTED = {
    "proc/self/cgroup": "0::/system.slice/streamlabel.slice/streamlabel@1.service\n",
    "proc/self/mountinfo": "31 23 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,memory_recursiveprot\n",
}
SLICE = "sys/fs/cgroup/system.slice/streamlabel.slice"
# A machine with v2 that has no controllers, beside v1.
HYBRID = {
    "proc/self/cgroup": "3:memory:/user\n2:cpu:/user\n0::/user\n",
    "proc/self/mountinfo": (
        "33 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    ),
}


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def tree(root: Path, *parts: Mapping[str, str]) -> Path:
    for name, text in {name: text for part in parts for name, text in part.items()}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def v1_cpu(folder: str, quota: str, period: str = "100000\n") -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": quota, f"{folder}/cpu.cfs_period_us": period}


def v1_memory(limit: str, with_swap: str) -> dict[str, str]:
    folder = "sys/fs/cgroup/memory"
    return {
        f"{folder}/memory.limit_in_bytes": limit,
        f"{folder}/memory.memsw.limit_in_bytes": with_swap,
    }


@pytest.mark.parametrize(
    ("parts", "quota"),
    [
        ([V2, {"sys/fs/cgroup/cpu.max": "150000 100000\n"}], 1.5),
        ([V2, {"sys/fs/cgroup/cpu.max": "max 100000\n"}], None),
        ([V1, v1_cpu("sys/fs/cgroup/cpu,cpuacct", "400000\n", "200000\n")], 2),
        ([V1, v1_cpu("sys/fs/cgroup/cpu,cpuacct", "-1\n")], None),
        ([V1, {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "100000\n"}], None),
        ([V1, {"sys/fs/cgroup/memory/cpu.cfs_quota_us": "100000\n"}], None),
        ([HYBRID, v1_cpu("sys/fs/cgroup/cpu/user", "300000\n")], 3),
        ([HYBRID, {"sys/fs/cgroup/unified/user/cgroup.procs": "1\n"}], None),
        ([NESTED, {f"{SLICE}/streamlabel@1.service/cpu.max": "400000 100000\n"}], 4),
        (
            [
                NESTED,
                {
                    f"{SLICE}/streamlabel@1.service/cpu.max": "max 100000\n",
                    f"{SLICE}/cpu.max": "800000 100000\n",
                    "sys/fs/cgroup/system.slice/cpu.max": "600000 100000\n",
                    "sys/fs/cgroup/cpu.max": "900000 100000\n",
                },
            ],
            6,
        ),
        ([NESTED], None),
        ([V2, {"sys/fs/cgroup/cpu.max": "many 100000\n"}], None),
        ([V2, {"sys/fs/cgroup/cpu.max": "\n"}], None),
        ([V2, {"sys/fs/cgroup/cpu.max": "100000 0\n"}], None),
        ([V2, {"proc/self/cgroup": "not a group\n\n::\n"}], None),
        ([V2, {"proc/self/mountinfo": "31 - cgroup2\nnot a mount\n"}], None),
        ([{}], None),
    ],
    ids=[
        "v2",
        "v2-unlimited",
        "v1",
        "v1-unlimited",
        "v1-without-a-period",
        "v1-other-controller",
        "hybrid",
        "hybrid-unlimited",
        "nested",
        "nested-ancestor",
        "nested-without-files",
        "malformed-number",
        "malformed-empty",
        "malformed-period",
        "malformed-groups",
        "malformed-mounts",
        "no-cgroups",
    ],
)
def test_the_quota_of_the_cgroups(
    parts: list[dict[str, str]], quota: float | None, tmp_path: Path
) -> None:
    assert cpu_limit(tree(tmp_path, *parts)) == CpuLimit(16, quota)


@pytest.mark.parametrize(
    ("parts", "limit"),
    [
        ([V2, {"sys/fs/cgroup/memory.max": "1073741824\n"}], 2**30),
        ([V2, {"sys/fs/cgroup/memory.max": "max\n"}], None),
        ([V1, {"sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n"}], 2**29),
        ([V1, {"sys/fs/cgroup/memory/memory.limit_in_bytes": f"{UNLIMITED_V1}\n"}], None),
        (
            [
                HYBRID,
                {
                    "sys/fs/cgroup/memory/user/memory.limit_in_bytes": f"{UNLIMITED_V1}\n",
                    "sys/fs/cgroup/memory/memory.limit_in_bytes": "2147483648\n",
                },
            ],
            2**31,
        ),
        (
            [
                NESTED,
                {
                    f"{SLICE}/streamlabel@1.service/memory.max": "3221225472\n",
                    f"{SLICE}/memory.max": "1073741824\n",
                },
            ],
            2**30,
        ),
        ([V2, {"sys/fs/cgroup/memory.max": "much\n"}], None),
        ([{}], None),
    ],
    ids=["v2", "v2-unlimited", "v1", "v1-unlimited", "hybrid", "nested", "malformed", "no-cgroups"],
)
def test_the_memory_limit_of_the_cgroups(
    parts: list[dict[str, str]], limit: int | None, tmp_path: Path
) -> None:
    assert memory_limit(tree(tmp_path, *parts)) == limit


@pytest.mark.parametrize("path", ["/", "/../other", "/kubepods/elsewhere"])
def test_a_group_outside_of_what_is_mounted_has_the_limits_of_the_mount_point(
    path: str, tmp_path: Path
) -> None:
    """A namespace of cgroups, or the lack of one, makes the two disagree."""
    mounts = V2["proc/self/mountinfo"].replace("0:27 / ", "0:27 /kubepods/pod1/c1 ")
    parts = {"proc/self/cgroup": f"0::{path}\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}
    assert cpu_limit(tree(tmp_path, V2, {"proc/self/mountinfo": mounts}, parts)).quota == 2
    outside = tree(tmp_path / "top", V2, parts, {"sys/fs/other/cpu.max": "100000 100000\n"})
    assert cpu_limit(outside).quota == 2


def test_a_mount_point_may_have_a_space(tmp_path: Path) -> None:
    mounts = V2["proc/self/mountinfo"].replace("/sys/fs/cgroup", r"/my\040groups")
    parts = {"proc/self/mountinfo": mounts, "my groups/memory.max": "1048576\n"}
    assert memory_limit(tree(tmp_path, V2, parts)) == 2**20


@pytest.mark.parametrize(
    ("quota", "number", "shown"),
    [
        (None, 16, "16 cores"),
        (64.0, 16, "16 cores: quota 64 of 16"),
        (2.0, 2, "2 cores: quota 2 of 16"),
        (2.9, 2, "2 cores: quota 2.9 of 16"),
        (0.25, 1, "1 core: quota 0.25 of 16"),
    ],
)
def test_a_quota_bounds_the_cores_and_is_rounded_down_to_one_at_least(
    quota: float | None, number: int, shown: str
) -> None:
    limit = CpuLimit(16, quota)
    assert (limit.cores, str(limit)) == (number, shown)


@pytest.mark.parametrize(("processes", "each"), [(1, 8), (3, 2), (9, 1)])
def test_processes_divide_the_cores(
    processes: int, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "cpu_limit", lambda: CpuLimit(16, 8.5))
    assert cores(processes) == each


def test_a_system_without_affinity_has_all_its_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cpu_limit(tmp_path) == CpuLimit(os.cpu_count() or 1, None)


@pytest.mark.parametrize(
    ("parts", "kills"),
    [
        ([V2, {"sys/fs/cgroup/memory.events": "low 0\noom 4\noom_kill 3\noom_group_kill 9\n"}], 3),
        (
            [
                V1,
                {"sys/fs/cgroup/memory/memory.oom_control": "oom_kill_disable 0\noom_kill 2\n"},
            ],
            2,
        ),
        ([V1, {"sys/fs/cgroup/memory/memory.oom_control": "oom_kill_disable 0\n"}], None),
        ([{}], None),
    ],
    ids=["v2", "v1", "old-kernel", "no-cgroups"],
)
def test_the_kernels_kills_are_counted(
    parts: list[dict[str, str]], kills: int | None, tmp_path: Path
) -> None:
    assert oom_kills(tree(tmp_path, *parts)) == kills


def test_swap_space_is_seen(tmp_path: Path) -> None:
    head = "Filename\tType\tSize\tUsed\tPriority\n"
    assert not may_swap(tmp_path)
    assert not may_swap(tree(tmp_path, {"proc/swaps": head}))
    assert may_swap(tree(tmp_path, {"proc/swaps": head + "/swap.img\tfile\t4194300\t0\t-2\n"}))


@pytest.mark.parametrize(
    ("parts", "may"),
    [
        ([NESTED, {f"{SLICE}/memory.swap.max": "0\n"}], False),
        ([NESTED, {f"{SLICE}/memory.swap.max": "max\n"}], True),
        ([NESTED, {f"{SLICE}/memory.swap.max": "1048576\n"}], True),
        ([V1, v1_memory("1073741824", "1073741824")], False),
        ([V1, v1_memory("1073741824", "2147483648")], True),
        ([V1, v1_memory(UNLIMITED_V1, UNLIMITED_V1)], True),
    ],
    ids=["v2-none", "v2-any", "v2-some", "v1-none", "v1-some", "v1-any"],
)
def test_a_group_may_forbid_swap(parts: list[dict[str, str]], may: bool, tmp_path: Path) -> None:
    """As systemd's MemorySwapMax=0 and Docker's --memory-swap do."""
    swaps = {"proc/swaps": "Filename\tType\n/swap.img\tfile\n"}
    assert may_swap(tree(tmp_path, swaps, *parts)) == may


def test_the_limits_of_this_process_are_readable() -> None:
    """Whatever they are: the kernel's own files are read without an error."""
    assert cpu_limit().cores >= 1
    assert (memory_limit() or 1) > 0
    assert (oom_kills() or 0) >= 0


def test_the_memory_of_this_process_is_read(tmp_path: Path) -> None:
    assert own_memory(tmp_path) is None
    status = tmp_path / "proc/self/status"
    status.parent.mkdir(parents=True)
    status.write_text("VmRSS:\t  9000 kB\nRssAnon:\t    2048 kB\nRssFile:\t  1 kB\n")
    assert own_memory(tmp_path) == 2 * 2**20


def test_sizes_are_shown_in_mib() -> None:
    assert as_mib(5 * 2**30 + 1) == "5,120 MiB"
