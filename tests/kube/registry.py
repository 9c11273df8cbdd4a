"""The scenarios, in the order in which they run."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.kube import scenarios
from tests.kube.verdicts import Failed, Tally

Function = TypeVar("Function", bound=Callable[[Any], "Happened"])


@dataclass(frozen=True)
class Happened:
    """The end of a scenario that went as it should.

    Attributes:
        what: a phrase for the table.
        planned: False if a worker ended without having been asked; records may then have a second
            result with delivery = "at_least_once".
        stall_bounded: the longest stall of a partition must be below the bound of `verdicts`.
        figures: name with unit -> value, for the JSON file.
        tally: the audit of a scenario that has a release of its own; the runner audits the others.
    """

    what: str
    planned: bool = True
    stall_bounded: bool = False
    figures: dict[str, float] = field(default_factory=dict)
    tally: Tally | None = None


@dataclass(frozen=True)
class Scenario:
    """A function with its place.

    Attributes:
        name: of the function.
        run: takes the `Release` named by `under`, or the `Site`.
        under: release that it shares; "" for none.
        order: those of one release run in this order; releases, in the order of their first one.
        disturbs: it disturbs the whole cluster, so it runs only on one that this program started,
            or if it is named.
    """

    name: str
    run: Callable[[Any], Happened]
    under: str
    order: int
    disturbs: bool


_FOUND: dict[str, Scenario] = {}


def scenario(
    *, under: str = "", order: int, disturbs: bool = False
) -> Callable[[Function], Function]:
    """Register a scenario; see `Scenario` for the arguments."""

    def register(function: Function) -> Function:
        name = function.__name__
        if name in _FOUND:
            raise ValueError(f"two scenarios have the name {name}")
        _FOUND[name] = Scenario(name, function, under, order, disturbs)
        return function

    return register


def load_all() -> list[Scenario]:
    """Import every file of `scenarios/` and return what it registered, in order."""
    for module in pkgutil.iter_modules(scenarios.__path__):
        importlib.import_module(f"{scenarios.__name__}.{module.name}")
    return in_order(_FOUND.values())


def in_order(found: Iterable[Scenario]) -> list[Scenario]:
    """Sort scenarios so that those of one release follow each other."""
    ordered = sorted(found, key=lambda one: (one.order, one.name))
    first = {one.under or one.name: one.order for one in reversed(ordered)}
    return sorted(ordered, key=lambda one: (first[one.under or one.name], one.under, one.order))


def chosen(found: list[Scenario], only: list[str], *, own_cluster: bool) -> list[Scenario]:
    """Return the named scenarios, or all that may run on this cluster.

    Raises:
        Failed: a name is unknown.
    """
    names = {one.name for one in found}
    if unknown := sorted(set(only) - names):
        raise Failed(f"unknown: {', '.join(unknown)}; choose from {', '.join(sorted(names))}")
    if only:
        return [one for one in found if one.name in only]
    return [one for one in found if own_cluster or not one.disturbs]
