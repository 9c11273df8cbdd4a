"""Splits a forward pass into parts that run in parallel, each on its own thread.

If all cores share one matrix product, they wait for each other at its end, a hundred times a pass:
whenever the system takes one core away for a moment (for a broker on the same machine, or for this
worker's other threads), all cores stand still. A lane has its own texts and waits for no other lane
until the pass ends.

Owns: the lanes' threads, which live as long as one pass.
Thread: infer, which waits for the lanes.
Must not import: transformers.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from math import ceil

import torch
from torch import Tensor

from worker.inference.classifier import Forward
from worker.logs import get_logger
from worker.timeline import span

Rows = Sequence[Sequence[int]]

# Tokens of a part. Smaller parts read the weights from memory too often; larger ones are too few
# to balance the load between a delayed lane and the others.
_LEAST, _MOST = 32, 512
# More lanes would wait for Python's lock.
_MOST_LANES = 16

log = get_logger(__name__)


class Lanes:
    """Runs a packed forward pass as several smaller ones.

    It is not for padded passes: their parts would compute other rectangles than the budget assumes.

    Args:
        forward: runs one part; called by all lanes at once.
        count: number of lanes, at least two; each computes with its share of the threads.
        threads: threads of all lanes together.
    """

    parallel = False

    def __init__(self, forward: Forward, count: int, threads: int) -> None:
        self.name, self.pads, self.longest = forward.name, forward.pads, forward.longest
        self.device, self.dtype = forward.device, forward.dtype
        self._forward, self.count, self._threads = forward, count, threads

    def __call__(self, rows: Rows) -> Tensor:
        """Return the logits [texts, labels] of each text's ids."""
        parts = list(_parts(rows, self.count))
        if len(parts) == 1:
            return self._run_whole(rows)
        results = [Future[Tensor]() for _ in parts]
        todo = deque(zip(parts, results, strict=True))
        share = max(1, self._threads // self.count)
        # Daemon threads, like the infer thread: a process that has to end waits for no pass.
        lanes = [
            threading.Thread(target=self._run, args=(todo, share), name=f"lane-{n}", daemon=True)
            for n in range(min(self.count, len(parts)))
        ]
        for lane in lanes:
            lane.start()
        # All lanes end even if one part failed, so that the next try finds the memory free.
        for lane in lanes:
            lane.join()
        return torch.cat([result.result() for result in results])

    def _run_whole(self, rows: Rows) -> Tensor:
        """Run the only part with all threads, or with half of them if it is short.

        A short part spends its time reading the weights from memory. The other half of the threads
        would not speed that up, but would take cores from the broker and the clients: on two cores
        47 ms instead of 41 on an idle machine, 58 instead of 74 in a worker, for half of the work.
        """
        short = sum(map(len, rows)) < 2 * _LEAST
        # Set on every call: a thread starts with the number that another thread set last.
        torch.set_num_threads(max(1, self._threads // 2) if short else self._threads)
        try:
            return self._forward(rows)
        finally:
            torch.set_num_threads(self._threads)

    def _run(self, todo: deque[tuple[Rows, Future[Tensor]]], threads: int) -> None:
        torch.set_num_threads(threads)  # of this thread alone, as is the mode in the next line
        with torch.inference_mode():
            while todo:
                try:
                    rows, result = todo.popleft()
                except IndexError:  # another lane took the last part
                    return
                try:
                    with span("part", texts=len(rows), tokens=sum(map(len, rows))):
                        result.set_result(self._forward(rows))
                except Exception as error:  # noqa: BLE001 - raised again in the infer thread
                    result.set_exception(error)


def side_by_side(forward: Forward, wanted: int | None) -> Forward:
    """Return the pass in lanes, or the pass itself if lanes don't apply.

    Args:
        forward: the pass.
        wanted: number of lanes; None for one for each thread, up to a limit.
    """
    threads = torch.get_num_threads()
    if not forward.parallel or forward.device != "cpu":
        if (wanted or 1) > 1:
            log.warning(
                "model.lanes ignored: only supported for packed passes on a CPU", wanted=wanted
            )
        return forward
    count = wanted or min(threads, _MOST_LANES)
    if count > threads:
        log.warning("model.lanes exceeds the number of threads", wanted=count, threads=threads)
    return Lanes(forward, count, threads) if count > 1 else forward


def _parts(rows: Rows, lanes: int) -> Iterator[Rows]:
    """Yield the rows in order, in parts of about equal tokens, the same number for every lane.

    Fewer lanes are used if one text exceeds a lane's share: the others would wait for it.
    """
    tokens, longest = sum(map(len, rows)), max(map(len, rows))
    lanes = max(1, min(lanes, tokens // max(_LEAST, longest)))
    share = tokens / (lanes * ceil(tokens / (lanes * _MOST))) if lanes > 1 else tokens
    start = taken = 0
    for row, ids in enumerate(rows, 1):
        taken += len(ids)
        if taken >= share or row == len(rows):
            yield rows[start:row]
            start, taken = row, 0
