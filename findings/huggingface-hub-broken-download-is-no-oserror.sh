#!/usr/bin/env bash
# Package: huggingface_hub 2.4.0 (with httpx2).
# Seen: a download that breaks off in the middle of a file raises httpx2's RemoteProtocolError out of `snapshot_download`. It is
#   neither an OSError, as the hub's own errors and those of earlier versions (requests) are, nor one of huggingface_hub's.
# Expected: an error of the library's own family, so that "the hub could not be read" can be caught without naming its transport.
# Why it matters here: models and data sets are fetched before any work, and what cannot be had is told in one line with a
#   remedy. Catching OSError, which the hub's own errors are, left a traceback (spring/engine/folders.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "huggingface_hub==2.4.0"
cat > "$folder/try.py" <<'PYTHON'
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlunsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Has one repository of one file, and sends 10 of its 100 bytes."""

    def log_message(self, *_):
        pass

    def answer(self, headers, body=b""):
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self):
        self.answer({"ETag": f'"{"e" * 40}"', "X-Repo-Commit": COMMIT, "Content-Length": "100"})

    def do_GET(self):
        parts = self.path.split("/")
        if "api" in parts:
            files = [{"type": "file", "path": "config.json", "size": 100, "oid": "e" * 40}]
            about = {"id": "some/model", "sha": COMMIT, "siblings": [{"rfilename": "config.json"}], "tags": []}
            body = json.dumps(files if "tree" in parts else about).encode()
            self.answer({"Content-Type": "application/json", "Content-Length": str(len(body))}, body)
        else:
            self.answer({"ETag": f'"{"e" * 40}"', "X-Repo-Commit": COMMIT, "Content-Length": "100"}, b"x" * 10)


server = ThreadingHTTPServer(("", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
here = "{}:{}".format(*server.server_address)
os.environ |= {"HF_ENDPOINT": urlunsplit(("http", here, "", "", "")), "HF_HUB_DISABLE_XET": "1"}
from huggingface_hub import snapshot_download

try:
    snapshot_download("some/model")
    said = None
except Exception as error:
    said = error
kinds = [f"{kind.__module__.split('.')[0]}.{kind.__name__}" for kind in type(said).__mro__]
print("raised:", " < ".join(kinds))
assert kinds[0] == "httpx2.RemoteProtocolError", "this has changed"
assert not isinstance(said, OSError) and not any(kind.startswith("huggingface_hub") for kind in kinds), "this has changed"
PYTHON
HF_HOME="$folder/cache" "$folder/venv/bin/python" "$folder/try.py" 2>/dev/null
echo "As described."
