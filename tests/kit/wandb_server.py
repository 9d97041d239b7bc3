"""A stand-in for W&B's server: keeps what the real client sends, and draws nothing."""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "a" * 40


@dataclass
class Server:
    """What has been sent."""

    url: str = ""
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)  # by id: what describes it
    history: dict[str, dict[int, Any]] = field(default_factory=lambda: defaultdict(dict))  # by id and line
    ended: dict[str, int] = field(default_factory=dict)  # by id: exit code
    artifacts: set[tuple[str, str, str]] = field(default_factory=set)  # type, name, digest
    made: list[tuple[str, str, str]] = field(default_factory=list)  # run, artifact's type, digest
    used: list[tuple[str, str]] = field(default_factory=list)  # run, digest
    views: list[dict[str, Any]] = field(default_factory=list)
    deleted: set[str] = field(default_factory=set)  # ids that are taken no more

    def graphql(self, operation: str, sent: dict[str, Any]) -> dict[str, Any]:
        """The answer to a query or mutation."""
        entity = {"id": "e", "name": "me"}
        if operation == "UpsertBucket":
            id = sent["name"]
            if id in self.deleted:
                raise PermissionError(
                    f"run me/spring/{id} was previously created and deleted; try a new run name"
                )
            new = id not in self.runs
            self.runs.setdefault(id, {}).update(
                {key: value for key, value in sent.items() if value is not None}
            )
            project = {"id": "p", "name": "spring", "entity": entity}
            bucket = {"id": f"b-{id}", "name": id, "displayName": sent.get("displayName"), "project": project}
            bucket |= {"description": None, "config": None, "sweepName": None, "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket, "inserted": new}}
        if operation == "CreateArtifact":
            asked = sent["input"]
            kind, digest = asked["artifactTypeName"], asked["digest"]
            self.artifacts.add((kind, asked["artifactCollectionName"], digest))
            self.made.append((asked["runName"], kind, digest))
            sequence = {"id": "s", "latestArtifact": {"id": digest, "versionIndex": 0}}
            return {
                "createArtifact": {
                    "artifact": {"id": digest, "state": "COMMITTED", "artifactSequence": sequence}
                }
            }
        if operation == "UseArtifact":
            self.used.append((sent["input"]["runName"], sent["input"]["artifactID"]))
            return {"useArtifact": {"artifact": {"id": sent["input"]["artifactID"]}}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in sent["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        if operation == "UpsertView2":
            self.views.append(sent)
            return {"upsertView": {"view": {"id": "v", "name": sent["name"]}, "inserted": True}}
        if operation == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if operation == "ArtifactType":  # of a name that is taken
            return {"project": None}
        return {"viewer": {"id": "u", "entity": "me", "username": "me", "teams": {"edges": []}}}

    def stream(self, run: str, sent: dict[str, Any]) -> None:
        """A part of a run's file stream: lines of history from an offset on, and how it ended."""
        lines = sent.get("files", {}).get("wandb-history.jsonl", {"offset": 0, "content": []})
        for place, line in enumerate(lines["content"], lines["offset"]):
            self.history[run][place] = json.loads(line)
        if sent.get("complete"):
            self.ended[run] = sent["exitcode"]


@contextmanager
def serving() -> Iterator[Server]:
    """The server, on a port of its own."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def answer(self, value: dict[str, Any], code: int = 200) -> None:
            body = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def sent(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

        def do_GET(self) -> None:
            self.answer({})

        def do_PUT(self) -> None:
            self.sent()
            self.answer({})

        def do_POST(self) -> None:
            body = self.sent()
            if self.path.startswith("/graphql"):
                asked = json.loads(body)
                found = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
                try:
                    data = server.graphql(found[1] if found else "", asked.get("variables") or {})
                except PermissionError as error:
                    self.answer({"errors": [{"message": str(error)}]}, 409)
                else:
                    self.answer({"data": data})
                return
            if self.path.endswith("/file_stream"):
                server.stream(self.path.split("/")[-2], json.loads(body))
            self.answer({"exitcode": None, "limits": {}})

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that hangs up is none."""

    with Quiet(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_port}"
        threading.Thread(target=http.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            http.shutdown()
