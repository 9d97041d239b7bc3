"""Mistakes of a newcomer in params.yaml: told in at most five lines, each with the place and the remedy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tasks import params

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")


def line_of(text: str) -> int:
    return TEXT[: TEXT.index(text)].count("\n") + 1


def told(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `python -m tasks.params` says of a file."""
    monkeypatch.chdir(folder)
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as refused:
        params.main()
    lines = str(refused.value).splitlines()
    assert lines[0].startswith("error: params.yaml") and len(lines) <= 4, lines
    return lines


# what stands in params.yaml, what is written there instead, what is said of it
VALUES = [
    ("    lmbda: 0.5", "    lmbda: 2", "arm.decode.lmbda is 2: must be less than or equal to 1"),
    ("    lmbda: 0.5", "    lambda: 0.5", "arm.decode.lambda: no such key; did you mean lmbda?"),
    ("seed: 0", "sead: 0", "sead: no such key; did you mean seed?"),
    ("seed: 0", "seed: zero", "seed is 'zero': must be a valid integer"),
    ("seed: 0", "seed: -1", "seed is -1: must be greater than or equal to 0"),
    ("seed: 0", "seed:", "seed is None: must be a valid integer"),
    ("test_share: 0.1", "test_share: 10%", "split.test_share is '10%': must be a valid number"),
    ("test_share: 0.1", "test_share: 0,1", "split.test_share is '0,1': must be a valid number"),
    ("suite: main", "suite: lamda", "suite is 'lamda': must be one of alpha, "),
    ("suite: main", "suite: lamda", "; did you mean lambda?"),
    ("suite: main", "suite:", "suite is None: must be one of alpha, "),
    ("source: personas", "source: persona", "ingest.source is 'persona': must be 'personas', "),
    ("device: auto", "device: gpu", "model.device is 'gpu': must be 'auto', 'cpu' or 'cuda'"),
    ("against: base", "against: bse", "evaluate.against is 'bse', not one of the arms ['base', "),
    ("  spring: {}", "  spring: yes", "arms.spring is True: must be a block of keys"),
    ("  spring: {}", "  spring: {decod: {}}", "arms.spring.decod: no such key; did you mean decode?"),
    ("experiment: personas", "experiment: a/b", "experiment is 'a/b': must match pattern"),
    ('{"0": base, "1": 0', "{0: base, 1: 0", "write the keys of `periods` in quotes"),
    ('"4": 3}', '"5": 3}', "it must be a chain of at least two periods, in order"),
    ("    lmbda: 0.5", "    lmbda: 2\n    a: 1\n    b: 1\n    c: 1", "and 2 more"),
]
YAML = [
    ("seed: 0", "seed:\t0", "has a tab: YAML takes plain blanks only"),
    ("    lmbda: 0.5", "\tlmbda: 0.5", "has a tab: YAML takes plain blanks only"),
    ("seed: 0", "seed:\u00a00", "has a no-break space: YAML takes plain blanks only"),
    ("seed: 0", "seed: [0", "opens a bracket that is not closed"),
    ("seed: 0", "seed 0", "lacks the colon behind its key"),
    ("  title: SPRInG", '  title: "SPRInG', "opens a quote that is not closed"),
    ("  title: SPRInG", "  title: SPRInG: this", "quotes around a text with a colon"),
]


@pytest.mark.parametrize(("was", "becomes", "said"), VALUES)
def test_a_value_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was: str, becomes: str, said: str
) -> None:
    assert was in TEXT
    lines = told(TEXT.replace(was, becomes, 1), tmp_path, monkeypatch)
    assert said in "\n".join(lines)


@pytest.mark.parametrize(("was", "becomes", "said"), YAML)
def test_a_file_that_is_no_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was: str, becomes: str, said: str
) -> None:
    """Named is the line where a reader would mend it, not where the parser gave up."""
    _, where, why = told(TEXT.replace(was, becomes, 1), tmp_path, monkeypatch)
    assert where.startswith(f"  line {line_of(was)}: {becomes.strip()}") and said in why


def test_a_line_that_is_indented_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = TEXT.replace("    lmbda: 0.5", "      lmbda: 0.5")
    _, where, why = told(text, tmp_path, monkeypatch)
    assert where.startswith(f"  line {line_of('    repetition_penalty')}: ") and "not in line with" in why


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "holds no parameters"), ("a", "holds no parameters"), ("seed: 0\nseed: 1", "stands twice")],
)
def test_a_file_without_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    assert said in "\n".join(told(text, tmp_path, monkeypatch))


def test_the_check_is_quick_and_silent() -> None:
    """Without the libraries that take seconds to import."""
    program = "import sys; from tasks import params; params.main(); print({'torch', 'dvc'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")
