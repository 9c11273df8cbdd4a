"""A group's offset of a deleted topic skips no record of the new one of its name."""

from __future__ import annotations

import pytest

from tests.integration.test_progress import MODES
from tests.integration.test_several_topics import Place, Start, place, start
from tests.support.workers import ask, wait_until
from worker.core.records import Partition
from worker.kafka_io.topic_notes import read_topic

pytestmark = pytest.mark.integration
__all__ = ["place", "start"]  # fixtures


@pytest.mark.parametrize("delivery", MODES)
@pytest.mark.parametrize(("pattern", "begin"), [(False, "latest"), (True, "earliest")])
def test_an_offset_committed_after_its_topic_was_recreated_does_not_count(
    place: Place, start: Start, delivery: str, *, pattern: bool, begin: str
) -> None:
    """A worker that has not noticed the new topic commits such an offset."""
    settings = (
        place.matches("in", delivery=delivery) if pattern else place.lists("in", delivery=delivery)
    )
    place.create("in")
    worker = start(settings)
    place.produce("in", 10)
    place.expect({"in": 10})
    wait_until(lambda: place.lag("in") == 0, what="all is committed")
    worker.stop()
    with ask(place.broker) as group:
        offsets = group.group_offsets(place.name)
        assert all(read_topic(at.note) for at in offsets.values())
        place.delete("in")
        place.create("in")
        group.set_offsets(place.name, offsets)
    place.produce("in", 15)
    start(settings | {"input.start": begin})
    both = [*range(10), *range(15)]
    wait_until(
        lambda: place.results() == {Partition(place("in"), n): both for n in range(2)},
        what="the new topic is read from its start",
    )
    wait_until(lambda: place.lag("in") == 0, what="all is committed")
