"""The budget of a forward pass: it shrinks at once and grows slowly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.core.budget import ForwardBudget
from worker.core.records import ModelInput


def rows(*lengths: int) -> ModelInput:
    ids = tuple((n,) * length for n, length in enumerate(lengths))
    return ModelInput(ids, tuple(range(len(ids))), (False,) * len(ids))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 200), st.booleans())
def test_passes_have_every_row_once_in_order_within_the_budget(
    lengths: list[int], most: int, pads: bool
) -> None:
    whole, budget = rows(*lengths), ForwardBudget(most, pads=pads)
    passes = list(budget.cut(whole))
    assert [position for part in passes for position in part.positions] == list(range(len(lengths)))
    assert all(budget.cost(part) <= most or len(part.ids) == 1 for part in passes)


def test_an_engine_without_padding_computes_only_the_tokens() -> None:
    mixed = rows(10, 2, 2, 2)
    assert (ForwardBudget(16).cost(mixed), ForwardBudget(16, pads=False).cost(mixed)) == (40, 16)
    assert [len(part.ids) for part in ForwardBudget(16).cut(mixed)] == [1, 3]
    assert [len(part.ids) for part in ForwardBudget(16, pads=False).cut(mixed)] == [4]


def test_a_pass_out_of_memory_makes_the_next_ones_smaller() -> None:
    budget = ForwardBudget(40)
    passes = budget.cut(rows(*[10] * 8))
    assert len(next(passes).ids) == 4
    budget.ran_out(20)
    assert [len(part.ids) for part in passes] == [2, 2]


def test_the_budget_grows_back_to_its_initial_size() -> None:
    budget = ForwardBudget(4096)
    budget.ran_out(1000)
    for _ in range(10_000):
        budget.fitted(budget.tokens)
    assert budget.tokens == 4096


def test_small_passes_do_not_make_the_budget_grow() -> None:
    budget = ForwardBudget(4096)
    budget.ran_out(1000)
    for _ in range(10_000):
        budget.fitted(500)
    assert budget.tokens == 1000


def test_each_failure_doubles_the_passes_before_growth() -> None:
    budget = ForwardBudget(4096)
    waits = []
    for _ in range(4):
        budget.ran_out(1000)
        waits.append(0)
        while budget.tokens == 1000:
            budget.fitted(1000)
            waits[-1] += 1
    assert waits == [128, 256, 512, 1024]


def test_the_budget_never_grows_on_a_failure() -> None:
    budget = ForwardBudget(4096)
    budget.ran_out(1000)
    budget.ran_out(3000)
    assert budget.tokens == 1000
