"""The model's memory does not grow with the number of shapes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.models import make_checkpoint

# In its own process: memory that other tests allocated and freed would hide a growth.
_LABEL = """
import random, sys
from pathlib import Path
from worker.inference.loading import load
from worker.settings import ModelSettings

def resident():
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0])

generator, words = random.Random(0), "rain on a wonderful train ".split()
tokeniser, classifier = load(ModelSettings(name=sys.argv[1], threads=1, engine="packed"), forward_tokens=4096)

def label(passes):
    for _ in range(passes):
        texts = [" ".join(generator.choices(words, k=generator.randint(1, 60)))
                 for _ in range(generator.randint(1, 16))]
        for model_input in tokeniser.tokenise(texts):
            classifier.predict(model_input)

label(300)
settled = resident()
label(900)
print(resident() / settled)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks into /proc")
def test_memory_does_not_grow_with_the_shapes_of_batches(tmp_path: Path) -> None:
    """FIELD complaint 12: memory grows on a CPU where each batch has another shape."""
    checkpoint = make_checkpoint(tmp_path / "model", max_tokens=64)
    command = [sys.executable, "-c", _LABEL, str(checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=True)
    assert float(done.stdout.splitlines()[-1]) < 1.03  # below the log
