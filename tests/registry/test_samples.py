"""The demo's schemas on a real registry: written, read, and gone at the end if they must be."""

from __future__ import annotations

import pytest

from tests.support.registry import ApicurioRegistry, new_subject
from worker.demo.avro_sample import AvroSample
from worker.demo.fallback_posts import fallback_posts
from worker.demo.sample import sample_stream
from worker.errors import Fatal
from worker.registry.samples import SampleRegistry

pytestmark = pytest.mark.integration

_SCHEMA = {"type": "record", "name": "Post", "fields": [{"name": "text", "type": "string"}]}


@pytest.mark.parametrize("keep", [True, False])
def test_a_subject_is_kept_in_the_demos_own_registry_only(
    registry: ApicurioRegistry, keep: bool
) -> None:
    subject = new_subject()
    with SampleRegistry(registry.url, keep=keep) as samples:
        value = samples.writer(subject, _SCHEMA)({"text": "hi"})
        assert samples.read(value) == {"text": "hi"}
        assert subject in registry.ask("GET", "/subjects")
    assert (subject in registry.ask("GET", "/subjects")) is keep


def test_a_result_with_an_unknown_schema_is_reported(registry: ApicurioRegistry) -> None:
    with (
        SampleRegistry(registry.url, keep=True) as samples,
        pytest.raises(Fatal, match="has no schema 2147483647"),
    ):
        samples.read(b"\0\x7f\xff\xff\xff\0")


def test_the_sample_has_two_releases_of_its_producer(registry: ApicurioRegistry) -> None:
    """Each post can be read; some broken values are those of Avro alone."""
    topic = new_subject()
    with SampleRegistry(registry.url, keep=False) as samples:
        stream = sample_stream(fallback_posts(), 20, 5_000, AvroSample(samples, topic))
        posts = [record.value or b"" for record in stream if record.valence is not None]
        read = [samples.read(value) for value in posts]
    assert len(posts) == 20
    assert len({value[:5] for value in posts}) == 2
    assert {len(document) for document in read} == {3, 4}
    assert [document["text"] for document in read] == [
        record.text for record in stream if record.valence is not None
    ]
    reasons = [record.expected for record in stream if record.expected]
    assert len(reasons) == 10
    assert {"not_framed", "unknown_schema", "schema_mismatch", "null_value"} <= set(reasons)
    assert max(len(record.value or b"") for record in stream) > 5_000
