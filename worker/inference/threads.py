"""Sets how many threads the model and the tokenizer compute with: those that this process may use.

A container sees all cores of its machine, and may have the time of one. Threads beyond its quota
use it up early, and the kernel stops all threads until the next period.

Owns: torch's threads, which lanes and OpenVINO divide, and the size of the tokenizer's pool.
Thread: load, before the tokenizer is loaded; infer for `set_threads`.
Must not import: transformers.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from worker.limits import as_mib, cores, cpu_limit, memory_limit
from worker.logs import get_logger
from worker.settings import default_environment, read_environment

log = get_logger(__name__)

# Its library starts a pool at the first texts, with a thread for each core that it sees.
_TOKENIZER_POOL: Final = "RAYON_NUM_THREADS"
# Torch's own choice at its import: OMP_NUM_THREADS, and at most a thread for each physical core.
_BY_TORCH: Final = torch.get_num_threads()


class _Here(threading.local):
    """The calling thread's share.

    Attributes:
        few: True while it leaves the processor to others.
        of_model: threads of the model that it loads meanwhile.
    """

    few = False
    of_model = 1


_here = _Here()


@contextmanager
def few_threads() -> Iterator[None]:
    """Let torch compute with one thread on the calling thread, whatever is set meanwhile.

    A model that is loaded in this block gets the number of threads that is set for it, and uses it
    on every other thread.
    """
    _here.few, _here.of_model = True, torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _here.few = False
        torch.set_num_threads(_here.of_model)  # threads that begin to use torch inherit it


def in_few_threads() -> bool:
    """Return whether the calling thread leaves the processor to others."""
    return _here.few


def set_threads(number: int) -> None:
    """Set torch's threads for what the calling thread computes."""
    if _here.few:
        _here.of_model = number
    else:
        torch.set_num_threads(number)


def threads_of_model() -> int:
    """Return the threads of the model that the calling thread loads or runs."""
    return _here.of_model if _here.few else torch.get_num_threads()


def use_threads(wanted: int | None, processes: int) -> None:
    """Set the threads of torch and of the tokenizer, and log them with the limits of this process.

    Args:
        wanted: the setting `model.threads`, for torch alone; None divides the cores among the
            processes.
        processes: workers of this machine that load the model.
    """
    limit, memory = cpu_limit(), memory_limit()
    allowed = cores(processes)
    threads = wanted or min(allowed, _BY_TORCH)
    set_threads(threads)
    default_environment(_TOKENIZER_POOL, str(allowed))
    log.info(
        "limits of this process",
        cpu=str(limit),
        memory="no limit" if memory is None else as_mib(memory),
        threads=threads,
        tokenizer_threads=read_environment(_TOKENIZER_POOL),
    )
    if limit.quota is not None and threads * processes > max(1, limit.quota):
        log.warning(
            "more threads than the CPU quota allows: the kernel stops them all for a part of each "
            "period; lower model.threads or processes, or raise the CPU limit of this container or service",
            threads=threads * processes,
            quota=limit.quota,
        )
