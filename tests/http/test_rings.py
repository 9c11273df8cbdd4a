"""A ring keeps exactly its last rows, in the memory that it says, and folds them without loss."""

from __future__ import annotations

from statistics import fmean

import pytest

from worker.http.rings import Ring

FOLDS = {"rate": fmean, "lag": max}


def rows(ring: Ring, step: int = 1, since: int = 0) -> list[tuple[int, float | None, float | None]]:
    return [(at, row["rate"], row["lag"]) for at, row in ring.folded(since, step, FOLDS)]


@pytest.mark.parametrize("added", [0, 1, 3, 4, 5, 100])
def test_the_last_rows_are_kept_oldest_first(added: int) -> None:
    ring = Ring(4)
    for n in range(added):
        ring.add(1000 * n, {"rate": n})
    assert len(ring) == min(added, 4)
    assert [row[0] for row in rows(ring)] == [1000 * n for n in range(max(0, added - 4), added)]
    assert ring.newest("rate", 2) == [float(n) for n in range(max(0, added - 2), added)]


def test_memory_depends_on_size_and_columns_alone() -> None:
    ring = Ring(100)
    for n in range(10_000):
        ring.add(n, {"rate": n, "lag": None if n % 2 else 5})
    assert ring.bytes == 100 * (8 + 4 + 4)
    ring.drop("lag")
    assert ring.bytes == 100 * (8 + 4)


def test_a_missing_number_is_none_also_where_the_ring_had_one_before() -> None:
    ring = Ring(2)
    ring.add(1, {"rate": 1.0, "lag": 7})
    ring.add(2, {"rate": None})
    ring.add(3, {})
    assert rows(ring) == [(2, None, None), (3, None, None)]
    assert ring.newest("rate", 5) == [None, None]
    assert ring.newest("unknown", 5) == [None, None]


def test_rows_are_folded_by_interval_rates_to_means_and_levels_to_the_highest() -> None:
    ring = Ring(20)
    for n in range(9):
        ring.add(500 * n, {"rate": n, "lag": 10 - n} if n != 3 else {"rate": n})
    assert rows(ring, step=2000) == [(1500, 1.5, 10.0), (3500, 5.5, 6.0), (4000, 8.0, 2.0)]
    assert rows(ring, step=2000, since=3000) == [(3500, 6.5, 4.0), (4000, 8.0, 2.0)]
    assert ring.fold(3000, FOLDS) == (4000, {"rate": 7.0, "lag": 4.0})


def test_a_column_may_begin_with_a_number_for_the_rows_so_far() -> None:
    ring = Ring(3)
    ring.add(1, {"rate": 1})
    ring.begin("lag", 0.0)
    ring.add(2, {"rate": 1, "lag": 5})
    assert [row[2] for row in rows(ring)] == [0.0, 5.0]


def test_numbers_keep_six_digits() -> None:
    ring = Ring(1)
    ring.add(1, {"rate": 0.1, "lag": 123_456_789})
    assert rows(ring) == [(1, 0.1, 123_457_000.0)]
