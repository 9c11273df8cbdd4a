"""The broker goes away under a working worker, and comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from tests.apache import ApacheKafka
from tests.conftest import Broker, Topics
from tests.workers import audit, count, produce, running, texts, wait_until
from worker.settings import read_environment

pytestmark = [pytest.mark.integration, pytest.mark.allow_errors]


@pytest.fixture
def own_kafka() -> Iterator[ApacheKafka]:
    home = read_environment("KAFKA_HOME")
    if not home:
        pytest.skip("needs an Apache Kafka of its own to stop and start: set KAFKA_HOME")
    with ApacheKafka(Path(home)) as kafka:
        yield kafka


def kill(kafka: ApacheKafka) -> None:
    kafka.nodes[0].kill()


@pytest.mark.parametrize("go_down", [ApacheKafka.go_down, kill], ids=["clean", "kill -9"])
def test_a_broker_that_goes_and_comes_back_loses_and_repeats_nothing(
    own_kafka: ApacheKafka, go_down: Callable[[ApacheKafka], None]
) -> None:
    broker = Broker(own_kafka.bootstrap_servers, "apache", "its own")
    topics = Topics("in", "out", "dead", "group", 3)
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    names = [topics.input, topics.output, topics.dead]
    admin.create_topics({name: {"num_partitions": 3} for name in names})
    admin.wait_for_topics(names)
    admin.close()
    with running(broker, topics, batch__max_records=16) as worker:
        produce(broker, topics.input, texts(200))
        wait_until(
            lambda: worker.value("streamlabel_records_published_total") > 50, what="it works"
        )
        go_down(own_kafka)
        wait_until(lambda: not worker.progress.ready()[0], 30, "it is not ready")
        assert worker.progress.ready() == (False, "the broker is away")
        assert worker.progress.live()[0]
        own_kafka.go_up()
        produce(broker, topics.input, texts(200, start=200))
        wait_until(lambda: count(broker, topics) >= 400, 60, "it works again")
        wait_until(lambda: worker.progress.ready()[0], 30, "it is ready again")
    assert worker.error is None
    verdict = audit(broker, topics)
    assert verdict["holds"], verdict
    assert (verdict["consumed"], verdict["missing"], verdict["reordered"]) == (400, 0, 0)
    assert verdict["duplicated"] == 0
