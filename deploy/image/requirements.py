"""Writes what each layer of the image installs: `requirements EXTRAS FOLDER`.

Reads pyproject.toml and constraints.txt beside it, and writes torch.txt (the pin of torch) and
packages.txt (everything else) into the folder. The layers read these files, so that a change of
pyproject.toml that touches no dependency reinstalls nothing.
"""

import sys
import tomllib
from pathlib import Path


def main(extras: str, folder: Path) -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    packages = list(project["dependencies"])
    for extra in filter(None, extras.split(",")):
        packages += project["optional-dependencies"][extra]
    pins = Path("constraints.txt").read_text(encoding="utf-8")
    torch = [line for line in pins.splitlines() if line.startswith("torch==")]
    folder.mkdir()
    (folder / "torch.txt").write_text("\n".join(torch) + "\n", encoding="utf-8")
    (folder / "packages.txt").write_text("\n".join(packages) + "\n", encoding="utf-8")
    (folder / "constraints.txt").write_text(pins, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
