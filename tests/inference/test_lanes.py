"""A forward pass in lanes: the same results and errors, with all lanes busy."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from tests.support.clocks import HandClock
from tests.support.models import Architecture, make_checkpoint
from worker.inference.classifier import scores
from worker.inference.lanes import Lanes, side_by_side
from worker.inference.loading import load
from worker.inference.packing import PackedForward
from worker.inference.shapes import round_up
from worker.inference.threads import few_threads
from worker.settings import ModelSettings

pytestmark = pytest.mark.usefixtures("offline")

Rows = Sequence[Sequence[int]]
PACKED = tuple(name for name in get_args(Architecture) if name != "gpt2")


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    """Set four threads, on any machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


class Fake:
    """A pass that returns each text's first id, and records its calls."""

    name, device, dtype, longest = "fake", "cpu", "float32", None
    pads, parallel = False, True

    def __init__(self, before: Callable[[Rows], object] = lambda _: None) -> None:
        self.before = before
        self.calls: list[tuple[str, int, int]] = []

    def __call__(self, rows: Rows) -> Tensor:
        self.calls.append((threading.current_thread().name, len(rows), torch.get_num_threads()))
        self.before(rows)
        return torch.tensor([[float(row[0])] for row in rows])


class Busy:
    """A clock of a model that was never idle: it stands still."""

    def monotonic(self) -> float:
        return -math.inf

    def wall_ms(self) -> int:
        return 0

    def sleep(self, seconds: float) -> None:
        """Return at once."""


def busy(forward: Any, count: int, threads: int) -> Lanes:
    """Return lanes without a pause between passes."""
    return Lanes(forward, count, threads, Busy())


def texts_of(*lengths: int) -> list[tuple[int, ...]]:
    return [(index,) * length for index, length in enumerate(lengths)]


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=60), lanes=st.integers(2, 5))
def test_each_text_has_its_own_result(lengths: list[int], lanes: int) -> None:
    """The results are in order for any assignment to lanes."""
    logits = busy(Fake(), lanes, 4)(texts_of(*lengths))
    assert logits.flatten().tolist() == list(range(len(lengths)))


@pytest.mark.parametrize("texts", [64, 128, 512])
def test_parts_have_sizes_that_a_pass_rounds_up_to(texts: int) -> None:
    """Otherwise the texts that fill them up cost 4 to 7 % of a pass."""
    drawn = torch.Generator().manual_seed(1)
    lengths = torch.randint(3, 60, (texts,), generator=drawn).tolist()
    tokens: list[int] = []
    fake = Fake(lambda rows: tokens.append(sum(map(len, rows))))
    busy(fake, 2, 4)(texts_of(*lengths))
    assert sum(round_up(size, 32) for size in tokens) < 1.015 * sum(lengths)
    assert max(tokens) <= 512


def test_a_text_longer_than_a_part_has_its_own() -> None:
    fake = Fake()
    busy(fake, 2, 4)(texts_of(*[600] * 4))
    assert [texts for _, texts, _ in fake.calls] == [1] * 4


@pytest.mark.parametrize("architecture", PACKED)
def test_a_model_gives_the_same_results_in_lanes(
    architecture: Architecture, tmp_path: Path
) -> None:
    """Parts run in one model at the same time, and don't see each other's texts."""
    folder = make_checkpoint(tmp_path / "model", architecture=architecture)
    packed = PackedForward(AutoModelForSequenceClassification.from_pretrained(folder).eval())
    drawn = torch.Generator().manual_seed(1)
    lengths = sorted(torch.randint(2, 60, (64,), generator=drawn).tolist(), reverse=True)
    rows = [torch.randint(2, 250, (n,), generator=drawn).tolist() for n in lengths]
    whole = scores(packed, rows, "softmax")
    for _ in range(5):
        in_lanes = scores(busy(packed, 4, 4), rows, "softmax")
        torch.testing.assert_close(in_lanes, whole, atol=1e-5, rtol=0)


def test_all_lanes_run_at_the_same_time() -> None:
    """Each has its share of the threads; the caller's number does not change."""
    meet = threading.Barrier(2, timeout=10)
    fake = Fake(lambda _: meet.wait())
    busy(fake, 2, 4)(texts_of(*[64] * 4))
    assert sorted(fake.calls) == [("lane-0", 2, 2), ("lane-1", 2, 2)]
    assert torch.get_num_threads() == 4


def test_a_delayed_lane_leaves_parts_to_the_others() -> None:
    """One lane waits until the other has run all other parts."""
    rest = threading.Semaphore(0)

    def hold(rows: Rows) -> None:
        if rows[0][0] == 0:
            assert all(rest.acquire(timeout=10) for _ in range(3))
        else:
            rest.release()

    fake = Fake(hold)
    busy(fake, 2, 4)(texts_of(*[256] * 8))  # four parts of 512 tokens
    assert len(fake.calls) == 4
    assert set(map(len, _by_lane(fake).values())) == {1, 3}


@pytest.mark.parametrize(
    ("lengths", "threads"),
    [((30, 30), 2), ((64,), 4), ((500, 40, 40, 40), 4)],
    ids=["short", "alone", "one long text"],
)
def test_a_pass_that_lanes_would_not_speed_up_runs_as_one_part(
    lengths: tuple[int, ...], threads: int
) -> None:
    """With all threads, or with half of them if it is short."""
    fake = Fake()
    busy(fake, 2, 4)(texts_of(*lengths))
    assert fake.calls == [(threading.current_thread().name, len(lengths), threads)]
    assert torch.get_num_threads() == 4


def test_a_small_pass_has_all_threads_if_the_model_was_idle() -> None:
    """It was idle before the first pass, and then for longer than the last pass took."""
    clock = HandClock()
    fake = Fake(lambda _: clock.sleep(2))
    lanes = Lanes(fake, 2, 4, clock)
    for pause in (0, 1, 3):
        clock.sleep(pause)
        lanes(texts_of(20))
    clock.sleep(3)
    lanes(texts_of(*[64] * 4))
    clock.sleep(9)
    lanes(texts_of(*[64] * 8))
    calls = [(texts, threads) for _, texts, threads in fake.calls]
    assert calls == [(1, 4), (1, 2), (1, 4), (4, 4), (4, 2), (4, 2)]


def test_a_single_text_has_all_threads_after_lanes_ran() -> None:
    """A new thread starts with the number that was set last, in this case by a lane."""
    fake = Fake()
    lanes = busy(fake, 2, 4)
    with ThreadPoolExecutor(1) as infer:
        infer.submit(lanes, texts_of(64, 64)).result()
    with ThreadPoolExecutor(1) as infer:
        infer.submit(lanes, texts_of(64)).result()
    assert [threads for _, _, threads in fake.calls] == [2, 2, 4]


def test_a_failed_part_fails_the_pass_after_all_lanes_ended() -> None:
    """The next try must find no other part in memory."""
    failed, ended = threading.Event(), threading.Event()

    def fail(rows: Rows) -> None:
        if rows[0][0] == 0:
            failed.set()
            raise MemoryError
        assert failed.wait(10)
        ended.set()

    with pytest.raises(MemoryError):
        busy(Fake(fail), 2, 4)(texts_of(64, 64))
    assert ended.is_set()
    assert not [t for t in threading.enumerate() if t.name.startswith("lane")]


@pytest.mark.parametrize(
    ("threads", "wanted", "count"),
    [(1, None, 1), (2, None, 2), (12, None, 12), (64, None, 16), (4, 1, 1), (4, 2, 2)],
)
def test_each_thread_has_a_lane_up_to_sixteen(threads: int, wanted: int | None, count: int) -> None:
    torch.set_num_threads(threads)
    forward: Any = side_by_side(Fake(), wanted)
    assert getattr(forward, "count", 1) == count


def test_a_padded_pass_is_not_split() -> None:
    """With a warning if `model.lanes` is set."""
    padded = Fake()
    padded.parallel = False
    with capture_logs() as logs:
        assert side_by_side(padded, None) is padded
        assert not logs
        assert side_by_side(padded, 2) is padded
    assert [entry["wanted"] for entry in logs] == [2]


@pytest.mark.parametrize(("lanes", "kind"), [(None, Lanes), (1, PackedForward)])
def test_the_setting_chooses_the_number_of_lanes(
    checkpoint: Callable[[Architecture], Path], lanes: int | None, kind: type
) -> None:
    _, classifier = load(ModelSettings(name=str(checkpoint("bert")), lanes=lanes), 512)
    assert isinstance(classifier.forward, kind)


def _by_lane(fake: Fake) -> dict[str, list[int]]:
    texts_by_lane: dict[str, list[int]] = {}
    for name, texts, _ in fake.calls:
        texts_by_lane.setdefault(name, []).append(texts)
    return texts_by_lane


def test_a_load_beside_another_model_starts_no_lanes() -> None:
    fake = Fake()
    lanes = Lanes(fake, 2, 4)
    with few_threads():
        assert lanes([[n] * 100 for n in range(20)]).shape == (20, 1)
    ((thread, rows, number),) = fake.calls
    assert (thread, rows, number) == (threading.current_thread().name, 20, 1)
