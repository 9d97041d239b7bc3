"""A real S3 server, moto's, in this process: requests are counted, and conditional puts are atomic."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

SECRET = "not-to-be-seen-anywhere"
SETTINGS = {
    "AWS_ACCESS_KEY_ID": "AKIDNOTTOBESEEN",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass
class Server:
    """Its address, and how many requests of each kind it has answered."""

    address: str
    counted: Counter[str] = field(default_factory=Counter)

    def environment(self, url: str) -> dict[str, str]:
        """What a process needs to use a URL there."""
        return {**SETTINGS, "AWS_ENDPOINT_URL_S3": self.address, "SPRING_CELLS_REMOTE": url}

    def since(self, before: Counter[str]) -> dict[str, int]:
        """What was asked since."""
        return dict(self.counted - before)


@contextmanager
def s3_server() -> Iterator[Server]:
    """A server, until the block ends; skips the test where a package is not installed."""
    for name in ("moto", "s3fs", "flask_cors"):
        pytest.importorskip(name, reason=f"the extra `dev` is not installed: {name} is missing")
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    backend, alone = DomainDispatcherApplication(create_backend_app), threading.Lock()
    found = Server("")

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        found.counted[kind_of(environ)] += 1
        with alone:
            return list(backend(environ, start))

    server = make_server("127.0.0.1", 0, app, threaded=True)
    found.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def kind_of(environ: dict[str, Any]) -> str:
    """PUT, GET, LIST, DELETE (of many at once) or HEAD, as providers charge them."""
    method, query = environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")
    if method == "GET" and "list-type" in query:
        return "LIST"
    return "DELETE" if method == "POST" and "delete" in query else str(method)


@contextmanager
def bucket(server: Server, name: str) -> Iterator[str]:
    """The URL of a new, empty bucket, which this process's environment is set up for."""
    import s3fs

    with pytest.MonkeyPatch.context() as patch:
        for key, value in server.environment(f"s3://{name}/cells").items():
            patch.setenv(key, value)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir(name)
        yield f"s3://{name}/cells"
        s3fs.S3FileSystem.clear_instance_cache()
