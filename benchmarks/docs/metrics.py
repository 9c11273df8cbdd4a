"""Every metric of streamlabel, by the name under which Prometheus stores it.

Owns: the table of metrics.
Thread: the main thread.
Must not import: anything of worker but metrics.
"""

from __future__ import annotations

from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase

from benchmarks.docs.markdown import code
from benchmarks.docs.markdown import table as markdown_table
from worker.metrics import Metrics, PoolMetrics

_SUFFIXES = {"counter": "_total", "info": "_info"}


def table() -> str:
    """Return name, type, labels and description of each metric."""
    catalogues = (Metrics(), PoolMetrics())
    labels = {
        # The library has no public way to ask a collector for its label names.
        c._name: c._labelnames  # noqa: SLF001
        for metrics in catalogues
        for c in vars(metrics).values()
        if isinstance(c, MetricWrapperBase)
    }
    # A metric that both export has the description of a worker's.
    families = {f.name: f for metrics in reversed(catalogues) for f in metrics.registry.collect()}
    order = dict.fromkeys(f.name for metrics in catalogues for f in metrics.registry.collect())
    rows = (
        (f"`{exported_name(family)}`", _kind(family, labels[name]), family.documentation)
        for name, family in ((name, families[name]) for name in order)
        if name in labels
    )
    return markdown_table(("Metric", "Type", "Description"), rows)


def _kind(family: Metric, labels: tuple[str, ...]) -> str:
    return family.type + (f" by {code(labels)}" if labels else "")


def exported_name(family: Metric) -> str:
    """Return a family's name with the suffix that its type gets in an exposition."""
    return family.name + _SUFFIXES.get(family.type, "")
