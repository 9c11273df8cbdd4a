"""The world of a history: one clock, one seed, and tasks that take turns on one thread.

A task is what is a thread in a real worker. It runs until it waits; then the seed decides which
task goes on, and how late. So each way in which threads can interleave at their waits is possible,
and the same seed gives the same history.

Owns: the clock, the random numbers, the tasks, and the stand-ins for `queue` and `threading`.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Any, Final

from greenlet import GreenletExit, getcurrent, greenlet

_START_MS: Final = 1_700_000_000_000
_IDLE: Final = 10.0  # times as long as asked for, a task waits for an empty or a full queue
_STEP: Final = 1e-6  # seconds by which the clock moves on at least
TICK: Final = 0.2  # seconds
_LATE: Final = (0.0, 0.0, 0.0, 0.001, 0.05, 0.3)  # seconds by which a task wakes late


@dataclass(eq=False, slots=True)
class Task:
    """A flow of control.

    Attributes:
        wakes_at: when it goes on, in seconds of the world's clock.
        until: a condition on which it goes on before.
        frozen: whether its process is stopped, as by SIGSTOP.
    """

    name: str
    owner: object
    run: greenlet
    wakes_at: float
    frozen: bool = False
    until: Callable[[], bool] | None = None


@dataclass
class World:
    """A clock and its tasks. It is also the `Clock` of every worker.

    Attributes:
        seed: decides everything that may differ.
        now: seconds since the history began.
        tick: called with the time, each `TICK` seconds at most.
        trace: what happened, if it is kept.
    """

    seed: int
    now: float = 0.0
    tick: Callable[[float], None] = lambda _: None
    trace: list[str] | None = None
    tasks: list[Task] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self._chance = self.random.random
        self._next_tick = 0.0
        self._main = getcurrent()
        self._dead: list[Task] = []
        self._closed = False

    def tell(self, text: str) -> None:
        """Keep a line of the trace."""
        if self.trace is not None:
            self.trace.append(f"{self.now:9.3f}  {text}")

    # -- the clock -----------------------------------------------------------------------------

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return _START_MS + int(self.now * 1000)

    def sleep(self, seconds: float) -> None:
        self.wait(seconds)

    # -- tasks ---------------------------------------------------------------------------------

    def spawn(self, name: str, owner: object, work: Callable[[], object]) -> Task:
        """Begin a task."""
        run = greenlet(work, parent=self._main)
        run.task = task = Task(name, owner, run, self.now)
        self.tasks.append(task)
        return task

    def wait(self, seconds: float, until: Callable[[], bool] | None = None) -> None:
        """Let other tasks run for about so long, or until a condition holds."""
        current = getcurrent()
        if current is self._main:  # outside of any task, as at the end of a history
            self.now += seconds
            return
        if self._closed:
            raise GreenletExit
        task: Task = current.task
        late = _LATE[int(self._chance() * len(_LATE))]
        task.wakes_at, task.until = self.now + seconds + late, until
        self._main.switch()

    def current(self) -> Task:
        """Return the task that runs."""
        task: Task = getcurrent().task
        return task

    def wake(self, task: Task) -> None:
        """Let a task go on that waits."""
        task.wakes_at = min(task.wakes_at, self.now)

    def kill(self, owner: object) -> None:
        """Let no task of a process go on: a process that is killed runs no `finally`."""
        self._dead += [task for task in self.tasks if task.owner is owner]
        self.tasks = [task for task in self.tasks if task.owner is not owner]

    def close(self) -> None:
        """End the tasks that are left; nothing that they do counts any more."""
        self._closed = True
        for task in [*self.tasks, *self._dead]:
            for _ in range(100):  # a task may catch the exception and wait again
                if not task.run:
                    break
                task.run.throw(GreenletExit)
        self.tasks, self._dead = [], []

    def freeze(self, owner: object, *, frozen: bool) -> None:
        """Stop all tasks of a process, or let them go on."""
        for task in self.tasks:
            if task.owner is owner:
                task.frozen = frozen

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Let the tasks take turns up to a time; return whether `done` held before."""
        while self.now < until:
            ready, later = self._look()
            if ready:
                self._go_on(ready)
            elif done():
                return True
            elif self._pass_time(later, until):
                self._go_on(later)
        return done()

    def _look(self) -> tuple[list[Task], list[Task]]:
        """Return the tasks that can go on, and those of the others that wake first."""
        now, first = self.now, inf
        ready, later = list[Task](), list[Task]()
        for task in self.tasks:
            if task.frozen:
                continue
            wakes_at = task.wakes_at
            if wakes_at <= now or (task.until and task.until()):
                ready.append(task)
            elif wakes_at < first:
                first, later = wakes_at, [task]
            elif wakes_at == first:
                later.append(task)
        return ready, later

    def _go_on(self, ready: list[Task]) -> None:
        task = ready[int(self._chance() * len(ready))]
        task.until = None
        task.run.switch()
        if task.run.dead and task in self.tasks:
            self.tasks.remove(task)

    def _pass_time(self, later: list[Task], until: float) -> bool:
        """Pass on to a time; return whether those that wake then are all that can go on."""
        wakes_at = later[0].wakes_at if later else inf
        self.now = now = min(until, max(wakes_at, self.now + _STEP))
        if now >= self._next_tick:
            self._next_tick = now + TICK
            self.tick(now)
            return False
        return now == wakes_at < until


class Queue:
    """Stands in for `queue.Queue` and `queue.SimpleQueue` between tasks of one world."""

    world: World

    def __init__(self, maxsize: int = 0) -> None:
        self._items: deque[Any] = deque()
        self._most = maxsize
        self._waiting: list[Task] = []

    def put_nowait(self, item: Any) -> None:
        if self.full():
            raise queue.Full
        self._items.append(item)
        self._wake()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if self.full() and block:
            self._wait(timeout)
        self.put_nowait(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if not self._items and block:
            self._wait(timeout)
        if not self._items:
            raise queue.Empty
        item = self._items.popleft()
        self._wake()
        return item

    def _wait(self, timeout: float | None) -> None:
        """Wait for the other side, longer than a thread would: an idle task costs turns."""
        self._waiting.append(self.world.current())
        self.world.wait(_IDLE * (timeout or 1.0))

    def _wake(self) -> None:
        for task in self._waiting:
            self.world.wake(task)
        self._waiting.clear()

    def full(self) -> bool:
        return 0 < self._most <= len(self._items)

    def empty(self) -> bool:
        return not self._items

    def qsize(self) -> int:
        return len(self._items)


class Thread:
    """Stands in for `threading.Thread`."""

    world: World
    owner: object = None

    def __init__(self, *, target: Callable[[], object], name: str, daemon: bool) -> None:
        self._target, self._name = target, name
        self._task: Task | None = None
        self._owner = Thread.owner
        self.ident = None

    def start(self) -> None:
        self._task = self.world.spawn(self._name, self._owner, self._target)

    def join(self, timeout: float | None = None) -> None:
        if self.is_alive():
            self.world.wait(timeout or 60.0, lambda: not self.is_alive())

    def is_alive(self) -> bool:
        return self._task is not None and not self._task.run.dead
