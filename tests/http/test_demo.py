"""`streamlabel demo --keep` and a real browser: from the topics to the screen, until Ctrl-C."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.conftest import Broker
from tests.integration.test_demo import BROKEN, Demo
from tests.support.browsers import NEEDS_CHROMIUM, PATIENCE, Visit, chromium
from tests.support.models import make_checkpoint

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400), NEEDS_CHROMIUM]

STREAM = ("--posts", "300", "--rate", "20")  # there is time to watch it


def wait_for(running: subprocess.Popen[str], words: str) -> re.Match[str]:
    """The first line that the demo prints from here on that says so."""
    assert running.stdout
    told = (re.search(words, line) for line in running.stdout)
    found = next(filter(None, told), None)
    assert found, f"the demo ended without {words!r}"
    return found


def test_what_the_demo_does_is_seen_and_also_its_end(broker: Broker, tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model", max_tokens=64)
    demo = Demo(broker, tmp_path / "own")
    running = demo.start("--keep", "--model", str(model), *STREAM)
    try:
        with chromium() as browser:
            port = int(wait_for(running, r"http://127\.0\.0\.1:(\d+)/ is its live page")[1])
            seen = Visit(browser.new_page(), port)
            seen.moves()
            texts = seen.page.locator("#posts li > div > bdi:not(.quiet)")
            expect(texts.first).not_to_be_empty(timeout=PATIENCE)

            wait_for(running, "staying up until Ctrl-C")
            seen.shows("dead", str(sum(BROKEN.values())))
            for name in ("inflight", "lag"):
                seen.shows(name, "0")
            seen.shows_metrics()

            seen.page.fill("#text", "what a lovely morning")
            seen.page.click("#box button")
            expect(seen.page.locator("#answer")).to_contain_text(
                "ms in the model", timeout=PATIENCE
            )
            seen.shows_metrics()
            assert seen.complaints == []
            assert seen.hosts == {"127.0.0.1"}

            running.send_signal(signal.SIGINT)
            seen.shows("state", "worker gone")
        output, errors = running.communicate(timeout=60)
        assert running.returncode == 0, output + errors
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    assert demo.leftovers() == []
