"""A hub of models on a local port: what `snapshot_download` asks of the real one."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def tree(folder: Path) -> list[dict[str, Any]]:
    """Return the hub's list of a model's files."""
    return [
        {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
        for file in sorted(folder.iterdir())
    ]


@contextmanager
def hub(name: str, folder: Path) -> Iterator[str]:
    """Serve one model, whose main branch is `COMMIT`; yield the value of HF_ENDPOINT."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self.wfile.write(self._answer())

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self) -> bytes:
            path = self.path.partition("?")[0]
            if path.startswith(f"/api/models/{name}/"):
                document = tree(folder) if "/tree/" in path else {"id": name, "sha": COMMIT}
                body = json.dumps(document).encode()
                return self._send(200, body, {"Content-Type": "application/json"})
            file = folder / path.rpartition("/")[2]
            if not path.startswith(f"/{name}/resolve/") or not file.is_file():
                return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
            body = file.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()}"'
            return self._send(200, body, {"ETag": etag, "X-Repo-Commit": COMMIT})

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> bytes:
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(key, value)
            self.end_headers()
            return body

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="hub")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
