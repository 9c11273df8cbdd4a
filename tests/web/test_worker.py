"""A whole worker, its page and a real browser: from the topic to the screen, until it is killed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.conftest import Broker, Topics
from tests.models import make_checkpoint
from tests.sites import CHROMIUM
from tests.workers import WorkerProcess, produce, texts, wait_until

PATIENCE = 60_000  # ms

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine's PATH"),
]


def test_what_a_worker_does_is_seen_and_also_its_end(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    model = make_checkpoint(tmp_path / "model", max_tokens=64)
    worker = WorkerProcess(broker, topics, model, tmp_path / "log", "--http-show-texts")
    complaints: list[str] = []
    try:
        worker.wait_ready()
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page()
            page.on("console", lambda said: complaints.append(said.text))
            page.goto(f"http://127.0.0.1:{worker.port}/")
            expect(page.locator("#state")).to_have_text("running", timeout=PATIENCE)

            produce(broker, topics.input, [*texts(300), (None, b"{"), (None, b"\xff")])
            wait_until(lambda: worker.published == 300, 120, "all are labelled")
            expect(page.locator("#published")).to_have_text("300", timeout=PATIENCE)
            expect(page.locator("#dead")).to_have_text("2", timeout=PATIENCE)
            expect(page.locator("#lag")).to_have_text("0", timeout=PATIENCE)
            counted = re.findall(
                r'streamlabel_labels_total{label="(\w+)"} (\d+)', worker.get("/metrics")[1]
            )
            shown = page.inner_text("#labels")
            assert counted
            for label, number in counted:
                assert re.search(rf"{label}\s+{number} · ", shown), shown
            assert "post number" in page.inner_text("#posts")

            page.fill("#text", "what a lovely morning")
            page.click("#box button")
            expect(page.locator("#answer")).to_contain_text("ms in the model", timeout=PATIENCE)
            assert worker.published == 300
            assert complaints == []

            worker.kill()
            expect(page.locator("#state")).to_have_text("worker gone", timeout=PATIENCE)
            browser.close()
    finally:
        worker.kill()
