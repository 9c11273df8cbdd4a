"""The page's figures of the routes: results by route, copies, and records without a result.

Owns: the member `routes` of a snapshot.
Thread: any.
Must not import: kafka, torch, worker.runtime.
"""

from __future__ import annotations

from typing import Any

from worker.http.reading import Reading

Json = dict[str, Any]


def routes_member(new: Reading) -> Json | None:
    """Return what the routes did since the start, or None without a route or a filtered record."""
    filtered = {
        f"{labels['reason']} {labels['route']}".rstrip(): number
        for labels, number in new.series("filtered_total")
    }
    main, copies = (new.by(f"{name}_total", "route") for name in ("routed", "copies"))
    lost, missing = new.total("copies_lost_total"), new.total("path_missing_total")
    if not (main or copies or filtered or lost or missing):
        return None
    return {
        "main": main,
        "copies": copies,
        "filtered": filtered,
        "lost": lost,
        "path_missing": missing,
    }
