"""The texts that a bench labels: a file's lines, or the rated tweets.

Runs on: the main thread, before anything is started. Must not import: kafka, torch.
"""

from __future__ import annotations

from pathlib import Path

from worker.errors import SettingsError


def read_texts(path: Path) -> list[str]:
    """The file's lines that are not blank. Raises SettingsError where there are none."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"--texts {path} can't be read ({error}): give a UTF-8 file of one text a line"
        ) from None
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise SettingsError(f"--texts {path} holds no text: give a file of one text a line")
    return texts


def repeated(texts: list[str], number: int) -> list[str]:
    """`number` texts: the given ones, evenly taken where there are more, in turns where fewer."""
    if len(texts) >= number:
        return [texts[index * len(texts) // number] for index in range(number)]
    return [texts[index % len(texts)] for index in range(number)]
