"""Splits a forward pass into parts that run in parallel, each on its own thread.

If all cores share one matrix product, they wait for each other at its end, a hundred times a pass:
whenever the system takes one core away for a moment (for a broker on the same machine, or for this
worker's other threads), all cores stand still. A lane has its own texts and waits for no other lane
until the pass ends.

A small pass spends its time reading the weights from memory, and each lane reads all of them. So
all cores together take half to nine tenths of the lanes' time (20 to 256 tokens, DistilBERT and
MiniLM, float32 and bfloat16, on two idle cores of AMD Zen 5). Beside other busy processes they take
as long, and use up to half more CPU time. So all threads run a small pass if the model was idle for
longer than its last pass took; otherwise half of them run a pass that is too short for lanes.

Owns: the lanes' threads, which live as long as one pass.
Thread: infer, which waits for the lanes.
Must not import: transformers.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from itertools import chain

import torch
from torch import Tensor

from worker.clock import Clock, SystemClock
from worker.inference import shapes
from worker.inference.classifier import Forward
from worker.inference.threads import in_few_threads, threads_of_model
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
        clock: tells whether the model was idle before a pass.
    """

    parallel = False

    def __init__(
        self, forward: Forward, count: int, threads: int, clock: Clock | None = None
    ) -> None:
        self.name, self.pads, self.longest = forward.name, forward.pads, forward.longest
        self.device, self.dtype = forward.device, forward.dtype
        self._forward, self.count, self._threads = forward, count, threads
        self._clock = clock or SystemClock()
        self._ended, self._took = -math.inf, 0.0  # the last pass, in seconds

    def __call__(self, rows: Rows) -> Tensor:
        """Return the logits [texts, labels] of each text's ids."""
        if in_few_threads():
            return self._forward(rows)
        began = self._clock.monotonic()
        idle = began - self._ended > self._took
        try:
            if idle and sum(map(len, rows)) < _MOST:
                return self._run_whole(rows, self._threads)
            return self._run_parts(rows)
        finally:
            self._ended = self._clock.monotonic()
            self._took = self._ended - began

    def _run_parts(self, rows: Rows) -> Tensor:
        parts = list(_parts([len(row) for row in rows], self.count))
        if len(parts) == 1:
            short = sum(map(len, rows)) < 2 * _LEAST
            return self._run_whole(rows, max(1, self._threads // 2) if short else self._threads)
        results = [Future[Tensor]() for _ in parts]
        todo = deque(
            ([rows[position] for position in part], result)
            for part, result in zip(parts, results, strict=True)
        )
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
        logits = torch.cat([result.result() for result in results])
        return logits[torch.tensor([*chain.from_iterable(parts)]).argsort()]

    def _run_whole(self, rows: Rows, threads: int) -> Tensor:
        # Set on every call: a thread starts with the number that another thread set last.
        torch.set_num_threads(threads)
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
    threads = threads_of_model()
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


def _parts(lengths: Sequence[int], lanes: int) -> Iterator[list[int]]:
    """Yield the positions of each part's texts; the parts have about equal tokens.

    There are as many parts for each lane, of sizes that a pass rounds up to, so that next to
    nothing is added to them. Fewer lanes are used if one text exceeds a lane's share: the others
    would wait for it.
    """
    tokens = sum(lengths)
    lanes = max(1, min(lanes, tokens // max(_LEAST, *lengths)))
    left = _Texts(lengths)
    for parts in range(lanes * math.ceil(tokens / (lanes * _MOST)), 0, -1):
        size = shapes.round_up(math.ceil(left.tokens / parts), shapes.TOKENS)
        if left.tokens:
            yield left.take(size if parts > 1 and lanes > 1 else tokens)


class _Texts:
    """Texts that are in no part yet."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.tokens = sum(lengths)
        self._positions = sorted(range(len(lengths)), key=lambda text: -lengths[text])[::-1]
        self._lengths = [lengths[text] for text in self._positions]

    def take(self, room: int) -> list[int]:
        """Return the positions of texts that fill `room` tokens: the longest that fits, again."""
        taken, index = list[int](), len(self._lengths) - 1
        while index >= 0:
            length = self._lengths.pop(index)
            taken.append(self._positions.pop(index))
            self.tokens, room = self.tokens - length, room - length
            index = bisect_right(self._lengths, room) - 1
        return taken
