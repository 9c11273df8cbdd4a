"""Runs scenarios in turn, audits after each, and says what failed."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Literal, cast

from tests.kube.registry import Scenario
from tests.kube.release import Release
from tests.kube.report import Line, line
from tests.kube.site import Site
from tests.kube.verdicts import Delivery, Failed, Tally, broken, stalled, told

_TAIL = "40"  # lines of each log


def run(site: Site, scenarios: Iterable[Scenario]) -> Iterator[Line]:
    """Run scenarios; those of one release follow each other. Yields a line as each ends."""
    for under, group in itertools.groupby(scenarios, key=lambda one: one.under):
        if under:
            yield from _share(site, cast("Delivery", under), list(group))
        else:
            for one in group:
                yield _timed(site, one.name, partial(_alone, site, one))


def _share(site: Site, delivery: Delivery, group: list[Scenario]) -> Iterator[Line]:
    """Run the scenarios of one release under load; one that does not recover ends them."""
    release = site.new(delivery.replace("_", "-"), delivery)
    try:
        begun = _timed(site, f"install {release.name}", partial(_install, release))
        yield begun
        if begun.held:
            yield from _each(site, release, group)
            yield _timed(site, f"all of {release.name}", partial(_in_all, release))
    finally:
        ended = _timed(site, f"uninstall {release.name}", partial(_uninstall, release))
    yield ended


def _each(site: Site, release: Release, group: list[Scenario]) -> Iterator[Line]:
    for number, one in enumerate(group):
        ended = _timed(site, one.name, partial(_under_load, release, one))
        yield ended
        if not ended.held and not _recovered(release):
            for left in group[number + 1 :]:
                yield Line(left.name, "not run", 0, broken=("the release did not recover",))
            return


def _install(release: Release) -> Line:
    release.create_topics()
    release.install()
    release.start_feed()
    release.wait_ready()
    return Line(release.name, "installed", 0)


def _uninstall(release: Release) -> Line:
    release.uninstall()
    return Line(release.name, "uninstalled", 0)


def _in_all(release: Release) -> Line:
    """Audit everything once more, when nothing is produced and nothing is left to do."""
    release.end_feed()
    tally = release.observe().tally
    found = broken(Tally(), tally, release.delivery, planned=False)
    return Line(release.name, "the feed ended and the backlog is gone", 0, tally, tuple(found))


def _recovered(release: Release) -> bool:
    try:
        release.wait_ready()
        release.observe()
    except Failed:
        return False
    return True


def _under_load(release: Release, one: Scenario) -> Line:
    before, since = release.audited, time.time()
    happened = one.run(release)
    observed = release.observe(since)
    after = observed.tally
    figures = {"longest_stall_s": round(observed.stall_s, 1)} | happened.figures
    found = broken(before, after, release.delivery, planned=happened.planned)
    if happened.stall_bounded:
        found += stalled(observed.stall_s, release.delivery)
    return Line(one.name, happened.what, 0, after.since(before), tuple(found), figures)


def _alone(site: Site, one: Scenario) -> Line:
    happened = one.run(site)
    tally = happened.tally
    found = broken(Tally(), tally, "at_least_once", planned=happened.planned) if tally else []
    return Line(one.name, happened.what, 0, tally, tuple(found), happened.figures)


def _timed(site: Site, name: str, act: Callable[[], Line]) -> Line:
    """Return the line of `act`; of a failure, after telling what Kubernetes and the pods say."""
    begun = time.monotonic()
    try:
        ended = act()
    except Failed as error:
        ended = Line(name, "did not go as it should", 0, broken=told(error))
    ended = Line(**vars(ended) | {"name": name, "seconds": time.monotonic() - begun})
    print(line(ended), flush=True)
    if not ended.held:
        _explain(site)
    return ended


def _explain(site: Site) -> None:
    for command in (
        ("get", "pods", "-o", "wide"),
        ("get", "events", "--sort-by=.lastTimestamp"),
        ("describe", "pods", "-l", "app.kubernetes.io/instance"),
        *_logs("-l", "app.kubernetes.io/instance", "--prefix", "--tail", _TAIL),
        *_logs("-l", "app=kafka", "--tail", _TAIL),
    ):
        print(f"--- kubectl {' '.join(command)}", file=sys.stderr)
        try:
            print(site.cluster.kubectl("-n", site.namespace, *command), file=sys.stderr)
        except Failed as error:
            print(error, file=sys.stderr)


def _logs(*selection: str) -> list[tuple[str, ...]]:
    whole: tuple[Literal["logs"], str] = ("logs", "--all-containers")
    return [(*whole, *selection), (*whole, "--previous", *selection)]
