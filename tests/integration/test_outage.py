"""The broker goes away while a worker labels, and comes back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import Topics
from tests.support.apache import ApacheKafka
from tests.support.own_kafka import admin_of, named, own_kafka
from tests.support.workers import audit, clock, count, produce, running, texts, wait_until
from worker.errors import Fatal

pytestmark = [pytest.mark.integration, pytest.mark.allow_errors]

TOPICS = Topics("in", "out", "dead", "group", 3)


def kill(kafka: ApacheKafka) -> None:
    kafka.nodes[0].kill()


@pytest.mark.parametrize("go_down", [ApacheKafka.go_down, kill], ids=["clean", "kill -9"])
def test_an_outage_of_the_broker_loses_and_repeats_nothing(
    go_down: Callable[[ApacheKafka], None],
) -> None:
    """Even an outage longer than a producer may be idle does not replace the producer."""
    settings = {"batch__max_records": 16, "kafka__request_timeout": 1.0}
    with own_kafka() as kafka:
        broker = named(kafka)
        with admin_of(kafka, TOPICS), running(broker, TOPICS, **settings) as worker:
            produce(broker, TOPICS.input, texts(200))
            wait_until(lambda: worker.published > 50, what="it works")
            go_down(kafka)
            away = "the broker is unreachable: "
            says = lambda: worker.progress.ready()[1].startswith(away)  # noqa: E731
            wait_until(says, 30, "it says what is wrong")
            assert not worker.progress.ready()[0]
            assert worker.progress.live()[0]
            clock.sleep(4)
            kafka.go_up()
            produce(broker, TOPICS.input, texts(200, start=200))
            wait_until(lambda: count(broker, TOPICS) >= 400, 60, "it works again")
            wait_until(lambda: worker.progress.ready()[0], 30, "it is ready again")
        assert worker.error is None
        verdict = audit(broker, TOPICS)
    assert verdict["holds"], verdict
    assert (verdict["consumed"], verdict["missing"], verdict["reordered"]) == (400, 0, 0)
    assert verdict["duplicated"] == 0


def test_a_stop_that_can_not_commit_exits_with_1() -> None:
    """Exit code 0 would promise that nothing is processed twice."""
    slow_commits = {"commit_interval": 60.0, "shutdown_timeout": 5.0}
    with own_kafka() as kafka:
        broker = named(kafka)
        with admin_of(kafka, TOPICS), running(broker, TOPICS, **slow_commits) as worker:
            produce(broker, TOPICS.input, texts(200))
            wait_until(lambda: worker.published == 200, what="all are labelled")
            # The first commit is due at once and may have covered all of these.
            produce(broker, TOPICS.input, texts(200, start=200))
            wait_until(lambda: worker.published == 400, what="all are labelled")
            kafka.nodes[0].freeze()
            with pytest.raises(Fatal, match=r"0 records .* offsets of 3 partitions not committed"):
                worker.stop()
            kafka.nodes[0].thaw()
