"""Encodes outcomes for the topics that routes choose: results, copies of them, and notes.

Owns: the headers that tell how a record was routed.
Thread: publish; pure.
Must not import: kafka_io.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from worker.core.copies import same_part
from worker.core.decisions.routes import Routed, Router, facts_of
from worker.core.encoder import Encoder
from worker.core.records import Classified, Encoded, Filtered, Outcome, Trace
from worker.core.route_headers import COPY_HEADER, CopyNote, RouteNote


class RoutedEncoder(Encoder):
    """An encoder that asks a router for the topics of each result.

    Args:
        router: chooses the topics.
    """

    def __init__(self, *args: Any, router: Router, **options: Any) -> None:
        super().__init__(*args, **options)
        self._router = router

    def encode_batch(
        self, outcomes: Iterable[Outcome], *, now_ms: int, now: float, trace: Trace | None = None
    ) -> list[Encoded]:
        """Encode outcomes; the copies of each follow it."""
        router, encoded = self._router, list[Encoded]()
        for outcome in outcomes:
            if isinstance(outcome, Classified):
                routed = router.route(facts_of(outcome))
                encoded += self._routed(outcome, routed, now_ms, now, trace)
            else:
                encoded.append(self.encode(outcome, now_ms=now_ms, now=now, trace=trace))
        return encoded

    def _routed(
        self, outcome: Classified, routed: Routed, now_ms: int, now: float, trace: Trace | None
    ) -> Iterator[Encoded]:
        main: Classified | Filtered = outcome
        if routed.dropped:
            main = Filtered(outcome.item, "route", routed.route, outcome.model)
            sent = self._note(main, now_ms)
        else:
            sent = self._result(outcome, now_ms, now, trace, routed.topic)
        if routed.copies or (routed.route and not routed.dropped):
            sent.headers.append(RouteNote(routed.route, routed.copies).header)
        sent = self.checked(sent, main, now_ms)
        if sent.reason is not None:  # a replay of the dead letter publishes the copies
            yield replace(sent, route=routed.route)
            return
        yield replace(sent, route=routed.route, copies=len(routed.copies))
        for copy in self._copies(outcome, routed.copies, now_ms, now, trace):
            yield same_part(copy, self.checked(copy, outcome, now_ms))

    def _copies(
        self,
        outcome: Classified,
        copies: Sequence[CopyNote],
        now_ms: int,
        now: float,
        trace: Trace | None,
    ) -> Iterator[Encoded]:
        for note in copies:
            copy = self._result(outcome, now_ms, now, trace, note.topic)
            copy.headers.append((COPY_HEADER, note.route.encode()))
            yield replace(copy, route=note.route, is_copy=True)
