"""The proofs. A file of this package registers its functions with `@proof`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests import proofs
from tests.kube.verdicts import Delivery, Failed
from tests.proofs.ground import Ground

_DELIVERIES: tuple[Delivery, ...] = ("at_least_once", "exactly_once")


@dataclass(frozen=True)
class Proved:
    """The end of a proof that went as it should; the audit has the last word.

    Attributes:
        what: a phrase for the table.
        report: of `streamlabel audit --json`, over everything.
        records: input records that the audit must have judged.
        dead_letters: records that must have a dead letter as their outcome; None: not judged.
        twice_allowed: most outcomes after a record's first one; None: as many as there are, where
            a process that was killed promises at least once.
        figures: name with unit -> value, for the JSON file.
    """

    what: str
    report: Mapping[str, Any]
    records: int
    dead_letters: int | None = 0
    twice_allowed: int | None = 0
    figures: dict[str, float] = field(default_factory=dict)


Prove = Callable[[Ground], Proved]


@dataclass(frozen=True)
class Proof:
    """A function, and the delivery modes that it is run with.

    Attributes:
        name: of the function.
        prove: raises `Failed`, or an AssertionError, if something is not as it should be.
    """

    name: str
    prove: Prove
    deliveries: Sequence[Delivery]

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (self.prove.__doc__ or "").strip().partition("\n")[0]


_FOUND: dict[str, Proof] = {}


def proof(*, deliveries: Sequence[Delivery] = _DELIVERIES) -> Callable[[Prove], Prove]:
    """Register a proof under the name of its function."""

    def register(function: Prove) -> Prove:
        name = function.__name__
        if name in _FOUND:
            raise ValueError(f"two proofs have the name {name}")
        _FOUND[name] = Proof(name, function, deliveries)
        return function

    return register


def load_all() -> list[Proof]:
    """Import every file of this package and return what was registered, by name."""
    for module in pkgutil.iter_modules(proofs.__path__):
        if not module.name.startswith(("_", "test_")):
            importlib.import_module(f"{proofs.__name__}.{module.name}")
    return [_FOUND[name] for name in sorted(_FOUND)]


def chosen(found: Sequence[Proof], names: Sequence[str]) -> list[Proof]:
    """Return the named proofs, or all.

    Raises:
        Failed: a name is unknown.
    """
    known = {one.name for one in found}
    if unknown := sorted(set(names) - known):
        raise Failed(f"unknown: {', '.join(unknown)}; choose from {', '.join(sorted(known))}")
    return [one for one in found if not names or one.name in names]
