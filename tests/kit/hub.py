"""A Hugging Face hub on this machine that breaks off every file: python hub.py MODULE FILE

asks `locate` of MODULE for a data set or model of one FILE and prints what it says.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Says of any repository that it has one file, and sends 10 of its 100 bytes."""

    file = ""

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self._file()

    def do_GET(self) -> None:
        if "/api/" not in self.path:
            self._file()
            self.wfile.write(b"x" * 10)
            return
        listed = [{"type": "file", "path": self.file, "size": 100, "oid": "e" * 40}]
        repository = {"id": "some/set", "sha": COMMIT, "siblings": [{"rfilename": self.file}], "tags": []}
        body = json.dumps(listed if "/tree/" in self.path else repository).encode()
        self._head({"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _file(self) -> None:
        self._head({"ETag": f'"{"e" * 40}"', "X-Repo-Commit": COMMIT, "Content-Length": "100"})

    def _head(self, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def main(module: str, file: str) -> None:
    Hub.file = file
    server = ThreadingHTTPServer(("localhost", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host, port = server.server_address[:2]
    os.environ.update(HF_ENDPOINT=f"http://{host!s}:{port}", HF_HUB_DISABLE_XET="1")
    how: dict[str, Any] = {"packaged": "x"} if "engine" in module else {"revision": None, "patterns": ["*"]}
    try:
        print(importlib.import_module(module).locate("some/set", key="the.key", **how))
    except (RuntimeError, ValueError) as error:  # ModelError, SourceError
        print(f"refused: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
