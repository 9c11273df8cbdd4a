"""Each example runs as its README says: worker, sender and reader, on topics of the test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Broker, Topics
from tests.support.models import make_checkpoint
from tests.support.workers import WorkerProcess, wait_until
from worker.settings import child_environment, load

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/streamlabel.toml"))
LABELS = {"emotions": ("joy", "anger", "surprise")}
# Parts of the reader's output that do not depend on the random weights.
EXPECTED = {
    "sentiment": ("post 1: ", "post 4: "),
    "emotions": ("post 3: ",),
    "enrichment": ("ada (12 likes): ", "bob (3 likes): "),
}


def script(broker: Broker, path: Path, *arguments: str) -> str:
    """Run a script of the examples and return its output."""
    done = subprocess.run(
        [sys.executable, str(path), *arguments],
        env=child_environment(KAFKA_BOOTSTRAP_SERVERS=broker.bootstrap_servers),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.integration
@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs(name: str, broker: Broker, topics: Topics, tmp_path: Path) -> None:
    """Every readable post has a line of the reader; a tiny local model stands in for the hub's."""
    model = make_checkpoint(
        tmp_path / "model",
        labels=LABELS.get(name, ("negative", "positive")),
        problem_type="multi_label_classification" if name in LABELS else None,
    )
    folder = EXAMPLES / name
    posts = (folder / "posts.jsonl").read_text(encoding="utf-8").splitlines()
    config = ("--config", str(folder / "streamlabel.toml"))
    worker = WorkerProcess(broker, topics, model, tmp_path / "log", *config)
    try:
        worker.wait_ready()
        sent = script(broker, EXAMPLES / "send.py", topics.input, str(folder / "posts.jsonl"))
        assert sent == f"sent {len(posts)} records to {topics.input}\n"
        unreadable = 1 if name == "sentiment" else 0
        wait_until(
            lambda: worker.published == len(posts) - unreadable, what="all posts are labelled"
        )
        output = script(broker, folder / "read.py", topics.output, str(len(posts) - unreadable))
    finally:
        code = worker.stop()
    assert code == 0
    assert all(part in output for part in EXPECTED[name]), output


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_of_an_example_are_valid(name: str) -> None:
    """They load, and the README of the example names its topics."""
    settings = load(config=EXAMPLES / name / "streamlabel.toml", environ={}).settings
    readme = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    assert f"send.py {settings.input.topic} " in readme
    reader = (EXAMPLES / name / "read.py").read_text(encoding="utf-8")
    assert f'"{settings.output.topic}"' in reader


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("send.py", ()),
        ("send.py", ("posts",)),
        *((f"{name}/read.py", ("posts", "three")) for name in NAMES),
        *((f"{name}/read.py", ("posts", "3", "more")) for name in NAMES),
        *((f"{name}/read.py", ("--help",)) for name in NAMES),
    ],
)
def test_a_script_says_how_it_is_used(path: str, arguments: tuple[str, ...]) -> None:
    """Wrong arguments end a script with one line, before it asks for a broker."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / path), *arguments],
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"usage: python examples/{path} ")
    assert done.stderr.count("\n") == 1
