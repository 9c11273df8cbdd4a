"""The texts of a bench, from a file or repeated from a sample.

Owns: reading and repeating them.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

from pathlib import Path

from worker.errors import SettingsError


def read_texts(path: Path) -> list[str]:
    """Return the file's lines that are not blank. Raises SettingsError if there are none."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"--texts: can't read {path} ({error}); give a UTF-8 file with one text a line"
        ) from None
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise SettingsError(f"--texts: {path} has no texts; give a UTF-8 file with one text a line")
    return texts


def repeated(texts: list[str], number: int) -> list[str]:
    """Return `number` texts: an even selection of a longer list, or a shorter one repeated."""
    if len(texts) >= number:
        return [texts[index * len(texts) // number] for index in range(number)]
    return [texts[index % len(texts)] for index in range(number)]
