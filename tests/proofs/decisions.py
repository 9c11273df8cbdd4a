"""Workers with two models, windows and routes are killed: no outcome, copy or note is lost."""

from __future__ import annotations

from tests.chaos.decisions import Routed, flags_for, models
from tests.kube.verdicts import Failed
from tests.proofs.ground import Command, Ground
from tests.proofs.registry import Proved, proof
from tests.support.ports import free_port
from worker.clock import SystemClock

_POISON = 0.01
_KILLS = (0.2, 0.45, 0.7)  # at these shares of the records
_FEW = 5_000  # records; fewer are labelled too fast to be interrupted more than once


@proof()
def decisions(ground: Ground) -> Proved:
    """Two workers with two models, windows and three routes, killed by turns."""
    routed = Routed.of(ground.names.group)
    arena = ground.produced(poison=_POISON, routed=routed)
    both = models(ground.folder)
    settings = flags_for({**both, **routed.routes})
    began = SystemClock().monotonic()

    def start() -> Command:
        return ground.start("run", *_arguments(ground, settings))

    running = [start(), start()]
    kills = _KILLS if arena.produced >= _FEW else _KILLS[:1]
    for share in kills:
        victim, most = running.pop(0), arena.produced * (1 - share)
        ground.kill_when(victim, lambda: ground.lag <= most, f"{share:.0%} is committed")  # noqa: B023 - called at once
        running.append(start())
    ground.labelled(arena)
    seconds = SystemClock().monotonic() - began
    for command in running:
        if code := command.stop():
            raise Failed(f"a worker ended with {code}")
    report = ground.audit({**routed.routes, "models": both["models"]})
    copies = sum(report["copies"].values())
    if report["uncopied"] or not copies:
        raise Failed(f"{report['uncopied']} copies are missing, and {copies} are there")
    found = {"spam": report["filtered"], "news": report["published_to"].get(routed.news)}
    if found != (due := {kind: arena.sent.count(kind) for kind in found}):
        raise Failed(f"the routes took {found}, and {due} should have gone there")
    once = ground.order.delivery == "exactly_once"
    return Proved(
        f"killed {len(kills)} times, {report['filtered']:,} filtered, {copies:,} copies",
        report,
        arena.produced,
        dead_letters=arena.bad,
        twice_allowed=0 if once else None,
        figures={"records_per_s": arena.produced / seconds, "copies": copies},
    )


def _arguments(ground: Ground, settings: tuple[str, ...]) -> tuple[str, ...]:
    return (
        *("--delivery", ground.order.delivery, "--kafka-session-timeout", "10"),
        *("--http-port", f"{free_port()}", "--model-threads", "1"),
        *settings,
    )
