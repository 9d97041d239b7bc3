"""Stage `code`: a digest of the code that each stage of dvc.yaml can reach, by imports (spring/code.py).

Stages depend on theirs and on no list of modules: an edit runs those stages again whose code can reach it; a
changed comment, docstring or annotation runs none. It is the first stage of every run, and notes what the run
begins with: the stages after it refuse to go on with anything else (tasks/stage.py). `ingest` depends on
`SOURCE`, too: where rows lie outside, every run asks it to read them.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import yaml

from spring.code import Code
from spring.store.keys import fingerprint
from tasks.files import write_text
from tasks.quick_yaml import read_yaml, write_yaml
from tasks.stage import BEGAN, read_params, run, suite_file, text_of, value_at

OUT = BEGAN.parent
SOURCE = OUT / "source"  # what `ingest` follows from besides parameters and code
MADE = ("personas",)  # sources that lie nowhere outside
ASKED, READ = "to be read\n", "read\n"


def main() -> None:
    """The project's modules -> data/code/STAGE, one line each; params.yaml and its suite -> `BEGAN`."""
    for stage, digest in digests(Code()).items():
        write_text(f"{digest}\n", OUT / stage)
    params = read_params()
    write_text(state_of_source(params), SOURCE)
    write_text(write_yaml({"params": params, "suite": text_of(suite_file(params))}), BEGAN)


def digests(code: Code) -> dict[str, str]:
    """The digest of every stage but this one, whose results change when its code does."""
    text = (code.root / "dvc.yaml").read_text(encoding="utf-8")
    names = (name for name in read_yaml(text)["stages"] if name != "code")
    return {name: code.digest(f"tasks.{name}") for name in names}


def state_of_source(params: dict[str, Any]) -> str:
    """Of a source outside that it is to be read; of others who was forgotten, and whose numbers are drawn."""
    if value_at(params, "ingest.source") not in MADE:
        return ASKED
    forgotten = fingerprint(text_of(Path("live/forgotten.json")), length=64)
    return f"Python {platform.python_version()}, forgotten {forgotten}\n"


def note_read() -> None:
    """Notes that `ingest` has read a source outside, so that what DVC records is the same after each run."""
    if text_of(SOURCE) == ASKED:
        write_text(READ, SOURCE)


if __name__ == "__main__":
    try:
        run(main)
    except yaml.YAMLError:
        from tasks import params  # slow to import, and the one to say in words what is wrong

        params.main()
        raise
