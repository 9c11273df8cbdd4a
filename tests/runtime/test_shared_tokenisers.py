"""Models whose tokenizers give the same ids share their work."""

from __future__ import annotations

from tests.support.panels import RuleModel, rule_card
from worker.core.decisions.prepare import preparation
from worker.inference.preparing import PreparingTokeniser
from worker.runtime.shared_tokenisers import SharedTokenisers
from worker.settings import PrepareSettings


class Keyed(RuleModel):
    def __init__(self, key: object) -> None:
        super().__init__(rule_card("x", "A", "B"), lambda _: "A")
        self.key = key


def test_the_same_texts_are_tokenised_once_for_models_with_the_same_key() -> None:
    shared, one, other = SharedTokenisers(), Keyed("k"), Keyed("k")
    first, second = shared.of(one), shared.of(other)
    assert first.tokenise(["a", "b"]) == second.tokenise(("a", "b"))
    assert second.tokenise(["a"]) == one.tokenise(["a"])
    assert one.tokenised == ["a", "b", "a", "a"]
    assert other.tokenised == []


def test_models_without_a_key_or_with_another_one_share_nothing() -> None:
    shared, one, other = SharedTokenisers(), Keyed(None), Keyed("k")
    assert shared.of(one) is one
    shared.of(other).tokenise(["a"])
    shared.of(Keyed("other")).tokenise(["a"])
    assert other.tokenised == ["a"]


def test_texts_that_are_equal_after_their_preparation_are_tokenised_once() -> None:
    shared, one, other = SharedTokenisers(), Keyed("k"), Keyed("k")
    whole = preparation(PrepareSettings(html=True))
    assert whole is not None
    first, second = PreparingTokeniser(one, whole), PreparingTokeniser(other, whole)
    assert (shared.of(first), shared.of(second)) == (first, second)
    first.tokenise(["a &amp; b"])
    second.tokenise(["a & b"])
    assert (one.tokenised, other.tokenised) == (["a & b"], [])


def test_a_model_that_stays_at_a_reload_shares_with_a_new_one() -> None:
    """Its preparation keeps the tokeniser that was shared before."""
    stays, new, whole = Keyed("k"), Keyed("k"), preparation(PrepareSettings(html=True))
    assert whole is not None
    prepared = PreparingTokeniser(stays, whole)
    SharedTokenisers().of(prepared)
    shared = SharedTokenisers()
    first, second = shared.of(prepared), shared.of(new)
    first.tokenise(["a &amp; b"])
    second.tokenise(["a & b"])
    assert (stays.tokenised, new.tokenised) == (["a & b"], [])
