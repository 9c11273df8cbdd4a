"""The best size of a pass, on simulated machines; and the warm-up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from worker.core.budget import ForwardBudget
from worker.core.records import ModelInput
from worker.errors import OutOfMemory
from worker.inference.tuning import SIZES, WarmUpTexts, best_size

ROWS = [(1,) * length for length in (40, 25, 25, 12, 7, 3)]
CPU = SIZES["cpu"]


class Machine:
    """A clock, and a forward pass that takes `seconds(tokens)` on it."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self._seconds, self._now = seconds, 100.0
        self.passes: list[ModelInput] = []

    def monotonic(self) -> float:
        return self._now

    def wall_ms(self) -> int:
        return 0

    def sleep(self, seconds: float) -> None:
        self._now += seconds

    def run(self, model_input: ModelInput) -> None:
        self.passes.append(model_input)
        self._now += self._seconds(model_input.tokens)

    def best(self, *, pads: bool = False) -> int:
        return best_size(self.run, ROWS, CPU, self, pads=pads)


def test_a_smaller_pass_is_best_if_larger_ones_exceed_the_caches() -> None:
    assert Machine(lambda n: 0.002 + n / 20_000 * (1 if n <= 1024 else 1.2)).best() == 1024


def test_a_smaller_pass_is_preferred_at_nearly_equal_speed() -> None:
    assert Machine(lambda n: 0.00001 + n / 40_000).best() == 256


def test_the_largest_pass_is_best_if_each_pass_has_a_high_fixed_cost() -> None:
    assert Machine(lambda n: 0.03 + n / 100_000).best() == 4096


def test_a_slow_machine_tries_the_sizes_that_fit_the_time() -> None:
    machine = Machine(lambda n: n / 800)
    assert machine.best() == 256
    assert [item.tokens > CPU[0] for item in machine.passes] == [False, True, False, True]


def test_time_too_short_for_a_large_pass_is_spent_on_smaller_ones() -> None:
    """A single try of each size is not enough if the noise exceeds the difference."""
    machine = Machine(lambda n: 0.05 + n / 900)
    hiccups = iter([0.0, 0.1])
    steady = machine._seconds
    machine._seconds = lambda n: steady(n) + next(hiccups, 0.0)
    assert machine.best() == 512


def test_a_single_slow_pass_does_not_matter() -> None:
    """On a machine that is busy at times, each size counts with its best time."""
    machine = Machine(lambda n: n / 50_000)
    hiccups = iter([0.1, 0.05])
    steady = machine._seconds
    machine._seconds = lambda n: steady(n) + next(hiccups, 0.0)
    assert machine.best() == 256


@pytest.mark.parametrize(("fits", "expected"), [(2048, 2048), (300, 256)])
def test_sizes_that_run_out_of_memory_are_not_used(fits: int, expected: int) -> None:
    def seconds(tokens: int) -> float:
        if tokens > fits:
            raise OutOfMemory
        return 0.03 + tokens / 100_000

    assert Machine(seconds).best() == expected


def test_a_size_that_failed_once_is_not_used() -> None:
    """Other processes may take memory between two passes."""
    machine = Machine(lambda n: 0.03 + n / 100_000)
    steady, passes = machine._seconds, machine.passes

    def seconds(tokens: int) -> float:
        if tokens > 2048 and len(passes) > len(CPU):
            raise OutOfMemory
        return steady(tokens)

    machine._seconds = seconds
    assert machine.best() == 2048


def test_a_machine_on_which_no_size_fits_fails() -> None:
    def seconds(_: int) -> float:
        raise OutOfMemory

    with pytest.raises(OutOfMemory):
        Machine(seconds).best()


@pytest.mark.parametrize(("speed", "least"), [(3_000, 1.0), (30_000, 1.0), (300_000, 0.0)])
def test_the_measurement_ends_within_two_seconds(speed: int, least: float) -> None:
    machine = Machine(lambda n: 0.001 + n / speed)
    start = machine.monotonic()
    machine.best()
    assert least < machine.monotonic() - start <= 2.0


@pytest.mark.parametrize("pads", [False, True])
def test_passes_are_full_and_within_their_size(pads: bool) -> None:
    machine = Machine(lambda n: n / 50_000)
    machine.best(pads=pads)
    budget = ForwardBudget(1, pads=pads)
    costs = [budget.cost(item) for item in machine.passes[: len(CPU)]]
    assert all(
        size - 40 * (2 if pads else 1) <= cost <= size
        for cost, size in zip(costs, CPU, strict=True)
    )


def _letters(text: str) -> ModelInput:
    """Return an input with one token for each word."""
    return ModelInput(((1,) * len(text.split()),), (0,), (False,))


def _warmed_up(machine: Machine, longest: int) -> list[int]:
    for model_input in WarmUpTexts(lambda text: _cut(_letters(text), longest), longest, machine):
        machine.run(model_input)
    return [item.tokens for item in machine.passes]


def _cut(text: ModelInput, longest: int) -> ModelInput:
    return ModelInput((text.ids[0][:longest],), text.positions, text.truncated)


def test_a_warm_up_runs_the_longest_text() -> None:
    assert _warmed_up(Machine(lambda _: 0.1), 64) == [2, 64]
    assert _warmed_up(Machine(lambda _: 0.1), 512) == [2, 512]
    assert _warmed_up(Machine(lambda _: 0.1), 3_000) == [2, 1_024, 2_048, 3_000]


def test_a_warm_up_ends_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    """The whole context of a decoder, 131,072 tokens, would take hours; 8,192 tokens take 7 s."""
    machine = Machine(lambda n: 1e-7 * n * n)
    assert max(_warmed_up(machine, 131_072)) < 16_384
    assert machine.monotonic() - 100 < 20
    assert "warm-up skipped the longest texts" in capsys.readouterr().out


def test_an_absurd_context_needs_no_memory() -> None:
    """A config may state any number of positions if the model has no embedding for them."""
    assert max(_warmed_up(Machine(lambda n: n / 100), 10**12)) < 10_000
