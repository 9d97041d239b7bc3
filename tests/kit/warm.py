"""Fresh Python processes that need not import what is slow to import: torch alone takes seconds.

A server that has imported the libraries, and none of the project's code, forks for every process asked for:
with arguments, folder, environment and open files of its own, as if Python had been started. Beside it lies
`python`, for programs that start Python by name, as DVC does.

    python warm.py SOCKET               the server
    python warm.py SOCKET ARGUMENTS...  what `python ARGUMENTS...` would do
"""

from __future__ import annotations

import array
import atexit
import contextlib
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

LIBRARIES = (
    "torch",
    "transformers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
)
LIBRARIES += ("transformers.models.bert.modeling_bert", "transformers.tokenization_utils_tokenizers")
LIBRARIES += (
    "peft",
    "polars",
    "pydantic",
    "yaml",
    "safetensors.torch",
    "bm25s",
    "faiss",
    "sklearn.cluster",
    "scipy.stats",
)
LIBRARIES += (
    "nltk",
    "rouge_score.rouge_scorer",
    "jinja2",
    "tqdm",
    "vl_convert",
)
LIBRARIES += (
    "dvc.cli",
    "dvc.repo",
    "dvc.commands.repro",
    "dvc.commands.init",
    "dvc.scm",
    "scmrepo.git",
    "dvc_data.index",
    "dvc_objects.fs.local",
)


class Process:
    """A process of the server's: its number, and how it ends."""

    def __init__(self, at: socket.socket) -> None:
        self.at = at
        self.pid = self._number()
        self.status: int | None = None

    def poll(self) -> int | None:
        """Its exit status, negative for the signal that ended it; null while it runs."""
        if self.status is None and select.select([self.at], [], [], 0)[0]:
            self.status = self._number()
        return self.status

    def wait(self) -> int:
        """`poll`, once it has ended."""
        if self.status is None:
            select.select([self.at], [], [])
        found = self.poll()
        assert found is not None
        return found

    def _number(self) -> int:
        read = b""
        while not read.endswith(b"\n"):
            byte = self.at.recv(1)
            assert byte, "the server of warm processes ended"
            read += byte
        return int(read)


def ask(
    server: str, words: list[str], *, folder: str, environment: Mapping[str, str], files: list[int]
) -> Process:
    """Starts `python WORDS` in a folder with an environment, on the files of input, output and errors."""
    at = socket.socket(socket.AF_UNIX)
    at.connect(server)
    asked = json.dumps({"words": words, "folder": folder, "environment": dict(environment)}).encode()
    at.sendmsg(
        [len(asked).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]
    )
    at.sendall(asked)
    return Process(at)


class Warm:
    """The server as tests see it. `folder` holds its socket and the `python` for a PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.socket = folder, str(folder / "socket")
        python = folder / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{__file__}" "{self.socket}" "$@"\n')
        python.chmod(0o755)

    def start(
        self, *words: str, folder: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> Process:
        """`python WORDS` without input, whose output nobody reads."""
        with Path(os.devnull).open("r+b") as nothing:
            files = [nothing.fileno()] * 3
            known = os.environ if environment is None else environment
            return ask(
                self.socket, list(words), folder=str(folder or Path.cwd()), environment=known, files=files
            )

    def run(
        self, *words: str, folder: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`python WORDS`, waited for, with what it printed."""
        command = [str(self.folder / "python"), *words]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@contextlib.contextmanager
def warm() -> Iterator[Warm]:
    """A server while tests need it, in a folder with a short name: that of a socket is limited."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    clean["OBJC_DISABLE_INITIALIZE_FORK_SAFETY"] = "YES"  # macOS
    folder = Path(tempfile.mkdtemp(prefix="warm-", dir="/tmp"))
    found = Warm(folder)
    server = subprocess.Popen([sys.executable, "-P", __file__, found.socket], env=clean)
    try:
        while not Path(found.socket).exists():
            assert server.poll() is None, "the server of warm processes ended"
            time.sleep(0.05)
        yield found
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder)


def serve(path: str) -> None:
    """Imports the libraries, then forks for whoever asks."""
    for name in LIBRARIES:
        importlib.import_module(name)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{path}.new")
    listening.listen()
    Path(f"{path}.new").rename(path)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        at, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            answer(at)
            os._exit(0)
        at.close()


def answer(at: socket.socket) -> None:
    """One process: its number to the one who asked, and its status once it has ended."""
    head, ancillary, _, _ = at.recvmsg(8, socket.CMSG_SPACE(3 * 4))
    files = array.array("i")
    files.frombytes(ancillary[0][2])
    left, asked = int.from_bytes(head, "big"), b""
    while len(asked) < left:
        asked += at.recv(left - len(asked))
    wanted = json.loads(asked)
    process = os.fork()
    if process == 0:
        at.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
        become(wanted["words"], wanted["folder"], wanted["environment"])
    for file in files:
        os.close(file)
    for number in range(3):
        os.close(number)
    at.sendall(f"{process}\n".encode())
    at.sendall(f"{os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])}\n".encode())


def become(words: list[str], folder: str, environment: dict[str, str]) -> None:
    """Does in this process what `python WORDS` would do, and ends it."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    kind, *rest = words
    sys.argv = {"-m": rest, "-c": ["-c", *rest[1:]]}.get(kind, words)
    sys.path[:0] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    if environment.get("PYTHONUNBUFFERED"):
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(write_through=True)  # type: ignore[union-attr]
    status: object = 0
    try:
        if kind == "-m":
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif kind == "-c":
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_path(kind, run_name="__main__")
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(int(status or 0))  # type: ignore[call-overload]


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    status = ask(
        sys.argv[1], sys.argv[2:], folder=str(Path.cwd()), environment=os.environ, files=[0, 1, 2]
    ).wait()
    sys.exit(status if status >= 0 else 128 - status)
