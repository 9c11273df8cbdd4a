"""Compares the memory that a model needs with its memory limit, before it is loaded.

A process that exceeds the limit is killed by the kernel and logs nothing. Only pages that the
kernel can't drop count as necessary: weights that run in the number type of their file are mapped
from it, and can be read again.

Owns: the estimate of a process's memory.
Thread: load, before the weights are loaded.
Must not import: torch, transformers; the first check comes before their import.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from worker.errors import SettingsError
from worker.limits import as_mib, may_swap, memory_limit
from worker.logs import get_logger

log = get_logger(__name__)

_MIB: Final = 2**20
# RssAnon in /proc/self/status of a worker that has imported all that it runs, and no model:
# 270 MiB with torch 2.13 for CPUs, transformers 5.23 and no optional package, 303 MiB with
# scikit-learn installed. A little less is certain for other versions too.
_LEAST_BASE, _BASE = 240 * _MIB, 300 * _MIB
# The memory of loading and of the first passes beyond the weights, in proportion to them and fixed.
# RssAnon rose to between 0.43 and 0.97 of the sum with BERT's base (110 million weights), in two
# types of file, three number types, packed and padded.
_MORE, _WORK = 1.1, 64 * _MIB
_SIZES: Final = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}  # bytes


@dataclass(frozen=True, slots=True)
class Loading:
    """How a model will be loaded.

    Attributes:
        weights: number of the model's weights; None if it isn't known, so that nothing is certain.
        stored: number of weights in its files, by number type.
        dtype: the number type that it runs in, or starts from.
        compares: True if it is compared with itself in float32 first, and may be repacked.
        stays: True if its weights stay in `dtype` and in this process's memory.
        copies: number of copies that another library may keep.
    """

    weights: int | None
    stored: Mapping[str, int]
    dtype: str
    compares: bool
    stays: bool
    copies: int = 0

    def size(self, dtype: str) -> int:
        """Return the bytes of the weights in a number type; unknown weights count as stored."""
        return (self.weights or sum(self.stored.values())) * _SIZES[dtype]

    def converted(self, dtype: str) -> int:
        """Return the bytes of the weights that their files have in another number type."""
        total = sum(self.stored.values())
        same = self.stored.get(dtype, 0) / total if total else 1.0
        return int(self.size(dtype) * (1 - same))

    @property
    def lasting(self) -> int:
        """Bytes of weights that stay as long as the process, and can't be dropped."""
        return self.converted(self.dtype) if self.stays and self.weights else 0

    @property
    def least(self) -> int:
        """Bytes of weights without which it can't be loaded."""
        return max(map(self.converted, self._types)) if self.weights else 0

    @property
    def usual(self) -> int:
        """Bytes with which it is loaded and runs, without reading weights again."""
        repacked = self.converted(self.dtype) if self.compares else 0
        most = max(self.size(d) + (repacked if d == self.dtype else 0) for d in self._types)
        return int((most + self.copies * self.size(self.dtype)) * _MORE) + _WORK

    @property
    def _types(self) -> set[str]:
        return {self.dtype, "float32"} if self.compares else {self.dtype}


def require_base(name: str, processes: int = 1) -> None:
    """Check that the limit leaves room for the libraries that a model needs; warn if it is tight.

    Raises:
        SettingsError: it certainly does not.
    """
    _require(name, processes * _LEAST_BASE, "without its weights", processes)
    _warn_if_tight(name, processes * _BASE, processes)


def require_memory(
    name: str,
    loading: Loading,
    processes: int,
    in_use: int | None = None,
    *,
    replaces: bool = False,
) -> int:
    """Check that the processes can load a model; warn if the limit is tight.

    Args:
        name: of the model.
        loading: how it will be loaded.
        processes: workers that load it under the same limit.
        in_use: bytes that each uses already, if it has a model that stays meanwhile.
        replaces: whether that model then makes room. Processes change one after the other, so only
            one of them has two.

    Returns the bytes that each process will usually need.

    Raises:
        SettingsError: they certainly can't.
    """
    base, usual_base = in_use or _LEAST_BASE, in_use or _BASE
    # All keep what lasts, and they need not all load at the same time.
    lasting = 0 if replaces else loading.lasting
    least = processes * (base + lasting) + max(0, loading.least - lasting)
    part = f"{as_mib(least - processes * base)} of it for weights"
    if in_use:
        part += f" beside the {as_mib(processes * in_use)} in use"
        _tell_more(name, loading, in_use)
    _require(name, least, part, processes, loading.dtype)
    usual = usual_base + loading.usual
    at_once = 1 if replaces else processes
    _warn_if_tight(name, processes * usual_base + at_once * loading.usual, processes, loading.dtype)
    return usual


def _tell_more(name: str, loading: Loading, in_use: int) -> None:
    limit = memory_limit()
    log.info(
        "loading a model beside the one in use",
        model=name,
        in_use=as_mib(in_use),
        more=as_mib(loading.usual),
        limit="no limit" if limit is None else as_mib(limit),
    )


def _require(name: str, least: int, part: str, processes: int, dtype: str = "") -> None:
    limit = memory_limit()
    if limit is None or least <= limit or may_swap():
        return
    needs = f"{processes} processes with {name} need" if processes > 1 else f"{name} needs"
    raise SettingsError(
        f"{needs} at least {as_mib(least)} of memory, {part}, and the container's or "
        f"service's limit is {as_mib(limit)}: {_remedies(processes, dtype)}"
    )


def _warn_if_tight(name: str, usual: int, processes: int, dtype: str = "") -> None:
    limit = memory_limit()
    if limit is not None and usual > limit:
        log.warning(
            "memory limit is tight: the kernel may kill a process that loads or runs the model",
            model=name,
            needed=as_mib(usual),
            limit=as_mib(limit),
            processes=processes,
            advice=_remedies(processes, dtype),
        )


def _remedies(processes: int, dtype: str) -> str:
    others = ["start fewer processes"] * (processes > 1) + ["choose a smaller model"] * bool(dtype)
    others += ["try model.dtype = bfloat16 or int8"] * (dtype == "float32")
    return ", or ".join(["raise its memory limit", *others])
