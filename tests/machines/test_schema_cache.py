"""The registry's cache as a state machine: bounded, and no schema lost that a record waits for."""

from __future__ import annotations

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from schemas.dead_letter import DeadLetterReason
from worker.errors import RecordRejected
from worker.registry.cache import Entry, SchemaCache

_KEYS = st.integers(0, 5)
_MINUTE = 60.0
_REJECTION = RecordRejected(DeadLetterReason.UNKNOWN_SCHEMA, "not there")


class Cache(RuleBasedStateMachine):
    """The oracle knows of each schema when it came, and whether a record has read it."""

    @initialize(size=st.integers(1, 4))
    def begin(self, size: int) -> None:
        self.size, self.cache = size, SchemaCache[str](size)
        self.now = 0.0
        self.came: dict[int, float] = {}  # those that no record has read
        self.used: set[int] = set()  # those that a record has read
        self.rejected: dict[int, float] = {}

    @rule(key=_KEYS, rejected=st.booleans())
    def settle(self, key: int, *, rejected: bool) -> None:
        rejection, lasts = (_REJECTION, _MINUTE) if rejected else (None, math.inf)
        self.cache.put(key, Entry(f"schema {key}", None, rejection, lasts, self.now))
        self.used.discard(key)
        self.came[key] = self.now
        waited_for = sum(self.now - came < _MINUTE for came in self.came.values())
        assert len(self.cache) <= max(self.size, waited_for)
        self.rejected.pop(key, None)
        if rejected:
            self.rejected[key] = self.now

    @rule(key=_KEYS)
    def read(self, key: int) -> None:
        entry = self.cache.get(key, self.now)
        waited_for = key in self.came and self.now - self.came[key] < _MINUTE
        if entry is None:
            assert not waited_for, "a record waited for it"
            self.came.pop(key, None)
            self.used.discard(key)
            return
        assert entry.compiled == f"schema {key}"
        if key in self.used and key in self.rejected:
            assert self.now - self.rejected[key] < _MINUTE, "the rejection is believed too long"
        self.came.pop(key, None)
        self.used.add(key)

    @rule(seconds=st.sampled_from((0.5, 30.0, 59.0, 60.0, 61.0)))
    def wait(self, seconds: float) -> None:
        self.now += seconds


TestCache = Cache.TestCase
TestCache.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
