"""A folder of wheels for the image, offered to its build by a proxy on 127.0.0.1.

pip on this machine knows where packages are; pip in a container does not. So `download` fetches
with the machine's own settings, and `offered` serves the folder to a build on the host's network.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import sys
import tempfile
import threading
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from packaging.utils import canonicalize_name, parse_wheel_filename

from tests.containers.engine import run
from worker.inference.bundled.encoder import REQUIREMENT

ROOT: Final = Path(__file__).parents[2]
PINS: Final = "deploy/constraints.txt"
CACHE: Final = ROOT / ".cache" / "wheels"
EXTRAS: Final = ("registry", "aws", "tracing")
TORCH_INDEX: Final = "https://download.pytorch.org/whl/cpu"

_PIP: Final = (sys.executable, "-m", "pip", "--disable-pip-version-check")
_ANSWER_S: Final = 60
_DOWNLOAD_S: Final = 1800


def download(cache: Path = CACHE) -> Path:
    """Return a folder with all wheels of the image, downloaded unless an earlier run did.

    Raises:
        Failed: pip could not download one.
    """
    wanted = _requirements()
    pins = (ROOT / PINS).read_text(encoding="utf-8")
    name = hashlib.sha256("\n".join([pins, *wanted]).encode()).hexdigest()[:12]
    folder = cache / name
    if not folder.is_dir():
        shutil.rmtree(cache, ignore_errors=True)  # of other pins
        cache.mkdir(parents=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _fetch(Path(scratch), [f"--constraint={PINS}", *_torch_index(), "--no-deps", "torch"])
            here = f"--find-links={scratch}"
            _fetch(Path(scratch), [f"--constraint={PINS}", here, *wanted])
            _fetch(Path(scratch), ["--no-deps", REQUIREMENT])
            Path(scratch).rename(folder)
            Path(scratch).mkdir()  # for its removal
    return folder


def _requirements() -> list[str]:
    """Return what the image installs beside the project, and what builds the project."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = document["project"]
    extras = [line for extra in EXTRAS for line in project["optional-dependencies"][extra]]
    return [*project["dependencies"], *extras, *document["build-system"]["requires"]]


def _torch_index() -> list[str]:
    """Return pip's option for torch's CPU build, unless pip is configured to look elsewhere."""
    configured = run([*_PIP, "config", "list"], os.environ, _ANSWER_S)
    own = re.search("index|find-links", configured)
    return [] if own else [f"--index-url={TORCH_INDEX}"]


def _fetch(folder: Path, arguments: list[str]) -> None:
    image = ["--python-version=3.11", "--only-binary=:all:"]
    command = [*_PIP, "download", "--quiet", f"--dest={folder}", *image, *arguments]
    run(command, os.environ, _DOWNLOAD_S, ROOT)


@contextlib.contextmanager
def offered(folder: Path) -> Iterator[str]:
    """Serve the wheels on 127.0.0.1 and give the URL.

    It is a proxy that answers as a package index would, whatever host pip asks for.
    """
    files = {file.name: file for file in folder.glob("*.whl")}
    links = defaultdict(list)
    for name in sorted(files):
        links[parse_wheel_filename(name)[0]].append(name)

    class Index(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            last = self.path.rstrip("/").rpartition("/")[2]
            if file := files.get(unquote(last)):
                self._send("application/octet-stream", file.read_bytes())
            elif found := links.get(canonicalize_name(last)):
                page = "".join(f'<a href="{quote(n)}">{n}</a>\n' for n in found)
                self._send("text/html", f"<!DOCTYPE html>\n{page}".encode())
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def _send(self, kind: str, body: bytes) -> None:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    thread = threading.Thread(target=server.serve_forever, name="wheels")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
