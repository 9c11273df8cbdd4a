"""Labeller: each record of a micro-batch gets one outcome, in poll order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from schemas import DeadLetterReason
from tests.support.records import CARD, invalid, item
from worker.core.budget import ForwardBudget
from worker.core.cache import PredictionCache
from worker.core.decisions.windows import Extent, WindowPlan
from worker.core.faults import CircuitBreaker
from worker.core.model import Step, Synchronous, no_step
from worker.core.records import (
    Classified,
    DeadLettered,
    MicroBatch,
    ModelCard,
    ModelInput,
    Outcome,
    Prediction,
)
from worker.errors import CircuitOpen, ModelUnavailable, OutOfMemory, RecordRejected
from worker.metrics import Metrics
from worker.runtime.labelling import Labeller


class Model(Synchronous):
    """Runs two texts a pass, the longest first, and truncates texts to five characters."""

    def __init__(self, fault: Callable[[Sequence[str]], None] = lambda _: None) -> None:
        self.fault = fault
        self.card: ModelCard = CARD

    def tokenise(self, texts: Sequence[str], _: Step = no_step) -> list[ModelInput]:
        self.fault([f"tokenise {text}" for text in texts])
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        pairs = [order[n : n + 2] for n in range(0, len(order), 2)]
        return [
            ModelInput(
                tuple(tuple(map(ord, texts[i][:5])) for i in pair),
                tuple(pair),
                tuple(len(texts[i]) > 5 for i in pair),
            )
            for pair in pairs
        ]

    def warm_up(self) -> None:
        pass

    def predict(self, model_input: ModelInput) -> list[Prediction]:
        texts = ["".join(map(chr, ids)) for ids in model_input.ids]
        self.fault([f"predict {text}" for text in texts])
        rows = zip(texts, model_input.truncated, strict=True)
        return [Prediction((0.5, 0.5), len(text), cut) for text, cut in rows]


def label(
    model: Model, *entries: object, refuse_long: bool = False, limit: int = 100
) -> list[Outcome]:
    labeller = Labeller(
        model,
        model,
        refuse_long=refuse_long,
        breaker=CircuitBreaker(limit, ratio=1.0),
        budget=ForwardBudget(4096),
        metrics=Metrics(),
    )
    batch = MicroBatch(tuple(entries), "ready", 0.0, 0.0)  # type: ignore[arg-type]
    return labeller.infer(labeller.tokenise(batch, no_step), no_step)


def summary(outcomes: list[Outcome]) -> list[str]:
    return [
        outcome.item.text if isinstance(outcome, Classified) else outcome.reason.value
        for outcome in outcomes
    ]


def fail_on(*words: str) -> Callable[[Sequence[str]], None]:
    def fault(texts: Sequence[str]) -> None:
        if set(words) & set(texts):
            raise ValueError("about a secret text")

    return fault


def test_outcomes_are_in_poll_order_although_passes_are_sorted_by_length() -> None:
    outcomes = label(Model(), item(0, "a"), invalid(1), item(2, "ccc"), item(3, "bb"))
    assert summary(outcomes) == ["a", "not_utf8", "ccc", "bb"]
    counts = [o.prediction.token_count for o in outcomes if isinstance(o, Classified)]
    assert counts == [1, 3, 2]


def test_a_batch_of_unreadable_records_needs_no_model() -> None:
    def never(_: Sequence[str]) -> None:
        raise AssertionError

    assert summary(label(Model(never), invalid(0), invalid(1))) == ["not_utf8", "not_utf8"]


def test_a_token_that_the_model_lacks_fails_its_text_alone() -> None:
    """The tokeniser refuses the text, other texts go on, and the message says what to do."""

    def fault(texts: Sequence[str]) -> None:
        if "tokenise bad" in texts:
            raise RecordRejected(DeadLetterReason.TOKENISER_FAILED, "save it after resizing")

    outcomes = label(Model(fault), item(0, "a"), item(1, "bad"), item(2, "cc"))
    assert summary(outcomes) == ["a", "tokeniser_failed", "cc"]
    dead = outcomes[1]
    assert isinstance(dead, DeadLettered)
    assert dead.message == "RecordRejected: save it after resizing"


def test_long_texts_are_truncated_or_refused_as_set() -> None:
    entries = (item(0, "short"), item(1, "much longer"))
    cut = label(Model(), *entries)
    assert [o.prediction.truncated for o in cut if isinstance(o, Classified)] == [False, True]
    assert summary(label(Model(), *entries, refuse_long=True)) == ["short", "too_many_tokens"]
    assert summary(label(Model(), entries[1], refuse_long=True)) == ["too_many_tokens"]


@pytest.mark.parametrize(
    ("where", "reason"), [("predict", "model_failed"), ("tokenise", "tokeniser_failed")]
)
def test_a_text_that_fails_fails_alone(where: str, reason: str) -> None:
    outcomes = label(
        Model(fail_on(f"{where} bad")), *(item(n, t) for n, t in enumerate(["a", "bad", "cc"]))
    )
    assert summary(outcomes) == ["a", reason, "cc"]
    dead = outcomes[1]
    assert isinstance(dead, DeadLettered)
    assert (dead.message, dead.attempt) == ("ValueError", 2)
    assert "secret" not in dead.message


def test_a_tokenizer_that_fails_only_on_the_batch_still_labels_all() -> None:
    def fault(texts: Sequence[str]) -> None:
        if len(texts) > 1 and texts[0].startswith("tokenise"):
            raise MemoryError

    assert summary(label(Model(fault), item(0, "a"), item(1, "b"))) == ["a", "b"]


def test_a_fatal_error_is_raised_and_fails_no_record() -> None:
    def fault(_: Sequence[str]) -> None:
        raise ModelUnavailable("gone")

    with pytest.raises(ModelUnavailable):
        label(Model(fault), item(0), item(1))


def test_the_breaker_counts_a_tokenizer_that_fails_on_everything() -> None:
    bad = [item(n, "bad") for n in range(6)]
    with pytest.raises(CircuitOpen):
        label(Model(fail_on("tokenise bad")), *bad, limit=6)


def test_the_breaker_does_not_count_faults_of_the_input() -> None:
    unreadable = [invalid(n) for n in range(6)]
    assert label(Model(), *unreadable, item(6, "much longer"), refuse_long=True, limit=1)
    bad = [item(n, "bad") if n % 2 else invalid(n) for n in range(6)]
    with pytest.raises(CircuitOpen, match="3 records in a row"):
        label(Model(fail_on("predict bad")), *bad, limit=3)


def test_the_breaker_counts_records_not_batches() -> None:
    bad = [item(n, "bad") for n in range(6)]
    with pytest.raises(CircuitOpen):
        label(Model(fail_on("predict bad")), *bad, limit=6)
    outcomes = label(Model(fail_on("predict bad")), *bad, item(6, "good"), limit=7)
    assert summary(outcomes).count(DeadLetterReason.MODEL_FAILED.value) == 6


@pytest.fixture
def labeller() -> Callable[..., Labeller]:
    def make(model: Model, budget: ForwardBudget) -> Labeller:
        breaker = CircuitBreaker(100, ratio=1.0)
        return Labeller(
            model, model, refuse_long=False, breaker=breaker, budget=budget, metrics=Metrics()
        )

    return make


def batch(*texts: str) -> MicroBatch:
    return MicroBatch(tuple(item(n, text) for n, text in enumerate(texts)), "ready", 0.0, 0.0)


def room_for(tokens: int) -> Callable[[Sequence[str]], None]:
    """Return a fault: passes above this many padded tokens run out of caching."""

    def fault(texts: Sequence[str]) -> None:
        words = [text.removeprefix("predict ") for text in texts]
        if texts[0].startswith("predict") and max(map(len, words)) * len(words) > tokens:
            raise OutOfMemory("too large")

    return fault


def test_a_pass_begins_before_the_one_before_it_is_finished(
    labeller: Callable[..., Labeller],
) -> None:
    """A GPU would otherwise wait while the CPU prepares the next pass."""
    events: list[str] = []

    class Queue(Model):
        """Note when a pass begins, and when its predictions are taken."""

        def begin(self, model_input: ModelInput) -> Callable[[], list[Prediction]]:
            number = sum(event.startswith("begin") for event in events)
            events.append(f"begin {number}")

            def wait() -> list[Prediction]:
                events.append(f"take {number}")
                return self.predict(model_input)

            return wait

    one = labeller(Queue(), ForwardBudget(5))  # one text a pass
    outcomes = one.infer(one.tokenise(batch("aaaaa", "bbbb"), no_step), no_step)
    assert summary(outcomes) == ["aaaaa", "bbbb"]
    assert events == ["begin 0", "begin 1", "take 0", "take 1"]


def test_running_out_of_memory_lowers_the_budget(labeller: Callable[..., Labeller]) -> None:
    """The pass is halved, all texts are labelled, and the largest pass that fits is the budget."""
    budget = ForwardBudget(4096)
    one = labeller(Model(room_for(5)), budget)
    assert summary(
        one.infer(one.tokenise(batch("aaaaa", "bbbb", "cc", "d"), no_step), no_step)
    ) == [
        "aaaaa",
        "bbbb",
        "cc",
        "d",
    ]
    assert budget.tokens == 5


def test_a_text_that_does_not_fit_alone_becomes_a_dead_letter_and_keeps_the_budget(
    labeller: Callable[..., Labeller],
) -> None:
    budget = ForwardBudget(4096)
    one = labeller(Model(room_for(4)), budget)
    outcomes = one.infer(one.tokenise(batch("aaaaa", "bbbb"), no_step), no_step)
    assert summary(outcomes) == ["model_failed", "bbbb"]
    assert isinstance(outcomes[0], DeadLettered)
    assert outcomes[0].message == "OutOfMemory: too large"
    assert budget.tokens == 4096


def test_progress_is_reported_before_each_call_of_the_model(
    labeller: Callable[..., Labeller],
) -> None:
    """So health sees a batch of many passes move, and it can be cancelled between two."""
    allowed = 3
    steps = []

    def step() -> None:
        steps.append(len(calls))
        if len(steps) > allowed:
            raise KeyboardInterrupt

    calls: list[Sequence[str]] = []
    one = labeller(Model(calls.append), ForwardBudget(4096))
    with pytest.raises(KeyboardInterrupt):
        one.infer(one.tokenise(batch(*"abcdefgh"), step), step)
    assert steps == [0, 1, 2, 3]
    assert len(calls) == allowed


# -- repeated texts ----------------------------------------------------------------------------


class RecordingModel(Model):
    """Records the calls of tokenizer and model, and fails on some texts."""

    def __init__(self, *broken: str) -> None:
        super().__init__(self.note)
        self.broken, self.calls = set(broken), list[str]()

    def note(self, texts: Sequence[str]) -> None:
        self.calls += texts
        if self.broken & set(texts):
            raise ValueError("about a secret text")


class CachingLabeller:
    """A labeller with a cache, which labels batch by batch."""

    def __init__(self, model: Model, limit: int = 100, *, cached: bool = True) -> None:
        self.metrics = Metrics()
        self.labeller = Labeller(
            model,
            model,
            refuse_long=False,
            breaker=CircuitBreaker(limit, ratio=1.0),
            budget=ForwardBudget(4096),
            metrics=self.metrics,
            cache=PredictionCache(1_000_000) if cached else None,
        )

    def label(self, *texts: str) -> list[Outcome]:
        tokenised = self.labeller.tokenise(batch(*texts), no_step)
        return self.labeller.infer(tokenised, no_step)

    def counted(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"streamlabel_cache_{name}", labels)


def offsets(outcomes: list[Outcome]) -> list[int]:
    records = [o.item.record if isinstance(o, Classified) else o.record for o in outcomes]
    return [record.ref.offset for record in records]


@pytest.mark.parametrize("cached", [True, False])
def test_a_text_that_occurs_twice_in_a_batch_is_run_once(*, cached: bool) -> None:
    model = RecordingModel()
    caching = CachingLabeller(model, cached=cached)
    outcomes = caching.label("a", "bb", "a", "much longer", "a", "much longer")
    assert summary(outcomes) == ["a", "bb", "a", "much longer", "a", "much longer"]
    assert offsets(outcomes) == [0, 1, 2, 3, 4, 5]
    assert len(model.calls) == 2 * 3  # by the tokenizer, by the model
    by_text = {o.item.text: o.prediction for o in outcomes if isinstance(o, Classified)}
    assert all(o.prediction is by_text[o.item.text] for o in outcomes if isinstance(o, Classified))
    assert by_text["much longer"].truncated
    assert caching.counted("hits_total", source="batch") == 3


def test_a_known_text_is_answered_from_the_cache() -> None:
    """The answer includes token count and truncation, and the order is kept."""
    model = RecordingModel()
    caching = CachingLabeller(model)
    before = caching.label("much longer", "a")
    model.calls.clear()
    after = caching.label("a", "new", "much longer", "a")
    assert model.calls == ["tokenise a", "tokenise new", "tokenise much longer", "predict new"]
    assert summary(after) == ["a", "new", "much longer", "a"]
    assert offsets(after) == [0, 1, 2, 3]
    kept = [o.prediction for o in after if isinstance(o, Classified)]
    assert [kept[2], kept[0]] == [o.prediction for o in before if isinstance(o, Classified)]
    assert kept[3] is kept[0]
    assert caching.counted("hits_total", source="cache") == 2
    assert caching.counted("misses_total") == 3
    assert (caching.counted("bytes") or 0) > 0


def test_a_disabled_cache_keeps_no_prediction() -> None:
    model = RecordingModel()
    caching = CachingLabeller(model, cached=False)
    assert [summary(caching.label("a")) for _ in range(2)] == [["a"], ["a"]]
    assert model.calls.count("predict a") == 2
    assert (caching.counted("misses_total"), caching.counted("bytes")) == (2, 0)


@pytest.mark.parametrize("where", ["predict", "tokenise"])
def test_a_poison_text_that_occurs_twice_gives_two_dead_letters_and_is_not_cached(
    where: str,
) -> None:
    model = RecordingModel(f"{where} bad")
    caching = CachingLabeller(model)
    outcomes = caching.label("bad", "a", "bad")
    reason = {"predict": "model_failed", "tokenise": "tokeniser_failed"}[where]
    assert summary(outcomes) == [reason, "a", reason]
    assert offsets(outcomes) == [0, 1, 2]
    model.broken.clear()
    assert summary(caching.label("bad", "a")) == ["bad", "a"]


def test_the_breaker_counts_each_record_of_a_poison_text() -> None:
    caching = CachingLabeller(RecordingModel("predict bad"), limit=3)
    assert summary(caching.label("bad", "bad", "a")) == ["model_failed", "model_failed", "a"]
    with pytest.raises(CircuitOpen, match="3 records in a row"):
        caching.label("bad", "bad", "bad")


def test_cached_texts_do_not_hide_a_model_that_fails_on_all_others() -> None:
    model = RecordingModel()
    caching = CachingLabeller(model, limit=3)
    caching.label("a", "b", "c")
    model.broken = {"predict x", "predict y", "predict z"}
    with pytest.raises(CircuitOpen, match="3 records in a row"):
        caching.label("x", "a", "y", "b", "b", "z", "c")


def test_a_text_that_does_not_fit_is_tried_each_time() -> None:
    """It becomes a dead letter while memory is short, and is labelled later."""
    model = Model(room_for(4))
    caching = CachingLabeller(model)
    assert summary(caching.label("aaaaa", "bbbb", "aaaaa")) == [
        "model_failed",
        "bbbb",
        "model_failed",
    ]
    model.fault = lambda _: None
    assert summary(caching.label("aaaaa", "bbbb")) == ["aaaaa", "bbbb"]


PLAN = WindowPlan(stride=1, max_windows=4, combine="mean")


class Windows(Model):
    """Cuts texts into windows of three characters; a probability is a share of `a`."""

    def __init__(self, fault: Callable[[Sequence[str]], None] = lambda _: None) -> None:
        super().__init__(fault)
        self.card = replace(CARD, windows=PLAN)
        self.passes = 0

    def tokenise(self, texts: Sequence[str], _: Step = no_step) -> list[ModelInput]:
        rows = [
            (text[start:stop], position, Extent(len(text), len(text)))
            for position, text in enumerate(texts)
            for start, stop in PLAN.cut(len(text), 3)
        ]
        rows.sort(key=lambda row: -len(row[0]))
        parts, positions, extents = zip(*rows, strict=True)
        ids = tuple(tuple(map(ord, part)) for part in parts)
        return [ModelInput(ids, positions, (False,) * len(rows), extents)]

    def predict(self, model_input: ModelInput) -> list[Prediction]:
        self.passes += 1
        texts = ["".join(map(chr, ids)) for ids in model_input.ids]
        self.fault([f"predict {text}" for text in texts])
        shares = [text.count("a") / len(text) for text in texts]
        pairs = zip(shares, texts, strict=True)
        return [Prediction((share, 1 - share), len(text), truncated=False) for share, text in pairs]


@pytest.mark.parametrize("tokens", [3, 7, 4096])
def test_the_windows_of_a_text_give_one_outcome_across_passes(
    labeller: Callable[..., Labeller], tokens: int
) -> None:
    model = Windows()
    one = labeller(model, ForwardBudget(tokens))
    outcomes = one.infer(one.tokenise(batch("abaXX", "b", "aaa"), no_step), no_step)
    found = [o.prediction for o in outcomes if isinstance(o, Classified)]
    assert [p.probabilities[0] for p in found] == pytest.approx([(2 / 3 + 1 / 3) / 2, 0, 1])
    assert [(p.windows, p.token_count, p.total_tokens) for p in found] == [
        (2, 5, 5),
        (1, 1, 1),
        (1, 3, 3),
    ]
    assert model.passes == {3: 4, 7: 2, 4096: 1}[tokens]


def test_a_window_that_fails_fails_its_text_alone_and_once() -> None:
    """The breaker counts the text, not its windows."""
    entries = [item(0, "abcdefg"), item(1, "fine words")]
    fault = fail_on("predict cde", "predict efg")
    outcomes = label(Windows(fault), *entries, limit=2)
    assert summary(outcomes) == ["model_failed", "fine words"]


def test_windows_are_counted_and_cached_by_text() -> None:
    metrics, model = Metrics(), Windows()
    one = Labeller(
        model,
        model,
        refuse_long=False,
        breaker=CircuitBreaker(100, ratio=1.0),
        budget=ForwardBudget(4096),
        metrics=metrics,
        cache=PredictionCache(100_000),
    )
    texts = ("abaXX", "b", "abaXX")
    first = one.infer(one.tokenise(batch(*texts), no_step), no_step)
    again = one.infer(one.tokenise(batch(*texts), no_step), no_step)
    assert first == again
    assert model.passes == 1
    value = metrics.registry.get_sample_value
    assert value("streamlabel_cache_hits_total", {"source": "cache"}) == 2
    assert value("streamlabel_cache_misses_total") == 2
    assert value("streamlabel_text_windows_bucket", {"le": "1.0"}) == 2
    assert value("streamlabel_text_windows_sum") == 2 * (2 + 1)
