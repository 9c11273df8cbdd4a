"""The size of a broker's log, while the broker deletes files of it."""

from __future__ import annotations

from pathlib import Path

from tests.support.apache import Node
from worker.clock import SystemClock


def test_a_file_that_vanishes_has_no_size(tmp_path: Path) -> None:
    node = Node(tmp_path, tmp_path / "node", {"PLAINTEXT": 1}, SystemClock())
    log = node.folder / "log" / "posts-0"
    log.mkdir(parents=True)
    (log / "0.log").write_bytes(b"x" * 7)
    (log / "1.log").symlink_to(log / "deleted since it was listed")
    assert node.log_size(["posts", "absent"]) == 7
