"""A forward pass in parts that run side by side, each on a thread of its own.

Where all cores share one matrix product, they wait for each other at its end, a hundred times a pass:
whenever the system takes one core away for a moment (for a broker beside, or for this worker's own
other threads), all stand still. A lane has texts of its own and waits for nobody until the pass ends.
The infer thread calls this and waits; the lanes live as long as the pass. Must not import transformers.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from math import ceil

import torch
from torch import Tensor

from worker.inference.torch_engine import Forward
from worker.logs import get_logger

Rows = Sequence[Sequence[int]]

# Tokens of a part: for smaller ones the weights are read from memory as often as for larger ones; of
# larger ones there are too few to even things out between a lane that was held up and the others.
_LEAST, _MOST = 32, 512
# With more, they would wait for each other at Python's lock instead.
_MOST_LANES = 16

log = get_logger(__name__)


class Lanes:
    """Runs a packed forward pass as several smaller ones.

    A padded pass is not for it: what it computes would no longer be the rectangle that the budget
    reckons with.

    Args:
        forward: runs one part; called by all lanes at once.
        count: lanes, at least two; each computes with its share of the threads.
        threads: all of them.
    """

    def __init__(self, forward: Forward, count: int, threads: int) -> None:
        self.model, self.name = forward.model, forward.name
        self.pads, self.parallel = forward.pads, False
        self._forward, self.count, self._threads = forward, count, threads

    def __call__(self, rows: Rows) -> Tensor:
        """Logits [texts, labels] of the ids of each text."""
        parts = list(_parts(rows, self.count))
        if len(parts) == 1:
            return self._alone(rows)
        answers = [Future[Tensor]() for _ in parts]
        todo = deque(zip(parts, answers, strict=True))
        share = max(1, self._threads // self.count)
        # Daemons, as the infer thread is: a process that has to end waits for no pass.
        lanes = [
            threading.Thread(target=self._run, args=(todo, share), name=f"lane-{n}", daemon=True)
            for n in range(min(self.count, len(parts)))
        ]
        for lane in lanes:
            lane.start()
        # For all, also where one part failed: whatever is tried next is to find the memory free.
        for lane in lanes:
            lane.join()
        return torch.cat([answer.result() for answer in answers])

    def _alone(self, rows: Rows) -> Tensor:
        """One part, by all threads; by half of them, where it is short.

        Its time goes into reading the weights from memory, which the other half would not speed up
        but keep from the broker and the clients: on two cores 47 ms instead of 41 on an idle
        machine, 58 instead of 74 in a worker, for half of the work.
        """
        short = sum(map(len, rows)) < 2 * _LEAST
        # Said each time: a thread begins with the number that any other has set last.
        torch.set_num_threads(max(1, self._threads // 2) if short else self._threads)
        try:
            return self._forward(rows)
        finally:
            torch.set_num_threads(self._threads)

    def _run(self, todo: deque[tuple[Rows, Future[Tensor]]], threads: int) -> None:
        torch.set_num_threads(threads)  # this thread's, as the next line's mode is
        with torch.inference_mode():
            while todo:
                try:
                    rows, answer = todo.popleft()
                except IndexError:  # another lane was faster
                    return
                try:
                    answer.set_result(self._forward(rows))
                except Exception as error:  # noqa: BLE001 - raised again by whoever asked
                    answer.set_exception(error)


def side_by_side(forward: Forward, wanted: int | None) -> Forward:
    """The pass in lanes, where that is of use.

    Args:
        forward: the pass.
        wanted: lanes; None for one a thread, as far as that goes.
    """
    threads = torch.get_num_threads()
    if not forward.parallel or next(forward.model.parameters()).device.type != "cpu":
        if (wanted or 1) > 1:
            log.warning("model.lanes is for packed passes on a CPU: there is one", wanted=wanted)
        return forward
    count = wanted or min(threads, _MOST_LANES)
    if count > threads:
        log.warning("there are more lanes than threads", wanted=count, threads=threads)
    return Lanes(forward, count, threads) if count > 1 else forward


def _parts(rows: Rows, lanes: int) -> Iterator[Rows]:
    """The rows in their order, in parts of about as many tokens each, as many for every lane.

    For fewer lanes, where one text is more than a lane's share: the others would wait for it.
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
