"""Stage `code`: a digest of the code that each stage of dvc.yaml can reach, by imports (spring/code.py).

Stages depend on theirs and on no list of modules: an edit runs those stages again whose code can reach it; a
changed comment, docstring or annotation runs none.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from spring.code import Code
from tasks.files import write_text

OUT = Path("data/code")


def main() -> None:
    """The project's modules -> data/code/STAGE, one line each."""
    for stage, digest in digests(Code()).items():
        write_text(f"{digest}\n", OUT / stage)


def digests(code: Code) -> dict[str, str]:
    """The digest of every stage but this one, whose results change when its code does."""
    text = (code.root / "dvc.yaml").read_text(encoding="utf-8")
    names = (name for name in yaml.safe_load(text)["stages"] if name != "code")
    return {name: code.digest(f"tasks.{name}") for name in names}


if __name__ == "__main__":
    main()
