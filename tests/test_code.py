"""Which code a result depends on: closures against Python's own finder, and every module edited in turn."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from modulefinder import ModuleFinder
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
import yaml
from kit.warm import Warm

from spring.code import PACKAGES, Code, Memory, modules_of
from spring.engine.settings import Decoding, Learning, Lora
from spring.method.mixing import Mixture
from spring.rivals.cope import Cope
from spring.rivals.ewc_lora import EwcLora
from spring.rivals.proper.fits import Layered
from spring.rivals.proper.levels import Proper
from tasks.code import digests

ROOT = Path(__file__).parents[1]
CELLS = sorted(
    f"tasks.cells.{path.stem}"
    for path in (ROOT / "tasks/cells").glob("*.py")
    if "cell_key(" in path.read_text(encoding="utf-8")
)
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
STAGES = [name for name in DVC if name != "code"]
COMMENTED = "spring/measures/statistics.py"  # many can reach it


def names(root: Path) -> list[str]:
    """Every module of the project."""
    files = sorted(path.relative_to(root) for package in PACKAGES for path in (root / package).rglob("*.py"))
    return [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files]


class Finder(ModuleFinder):
    """Python's own, which reads the bytecode of a text once for all modules that reach it."""

    def scan_opcodes(self, co: CodeType) -> list[tuple[str, Any]]:
        return opcodes(co)


@cache
def opcodes(co: CodeType) -> list[tuple[str, Any]]:
    return list(ModuleFinder.scan_opcodes(ModuleFinder(), co))


@cache
def reached(module: str) -> set[str]:
    """What Python's own finder, which reads bytecode, says that a module imports anywhere."""
    others = [path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in PACKAGES]
    finder = Finder(path=[str(ROOT)], excludes=others)  # a folder wandb/ is not the library
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modulefinder.compile", compiled, raising=False)
        finder.import_hook(module)
    return {name for name in finder.modules if name.split(".")[0] in PACKAGES}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the project, to be edited."""
    root = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "dvc.yaml", root / "dvc.yaml")
    return root


compiled = cache(compile)


def states(code: Code) -> dict[str, str]:
    """The digest of every cell's and every stage's code."""
    return {module: code.digest(module) for module in CELLS} | digests(code)


def edits(root: Path, change: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Every module with `change` behind its text, one after the other, and the digests then."""
    code = Code(root)
    states(code)
    for module in names(root):
        file = code.file(module)
        assert file is not None
        before = file.read_text(encoding="utf-8")
        file.write_text(f"{before}\n{change}\n", encoding="utf-8")
        yield module, states(but(code, module))
        file.write_text(before, encoding="utf-8")


def but(known: Code, module: str) -> Code:
    """Code that has yet to read one module, and knows all others."""
    code = Code(known.root)
    code._files = known._files
    code._read = {name: read for name, read in known._read.items() if name != module}
    code._imports = {name: found for name, found in known._imports.items() if name != module}
    return code


def test_there_are_cells_and_stages() -> None:
    assert len(CELLS) >= 8 and len(STAGES) >= 10


@pytest.mark.slow
def test_an_edit_changes_exactly_what_can_reach_it(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys of cells, and stages that run; no other."""
    monkeypatch.setattr("spring.code.MEMORY", Memory(tmp_path / "code.json"))
    reach = {module: reached(module) for module in CELLS} | {
        name: reached(f"tasks.{name}") for name in STAGES
    }
    before, touched = states(Code(copy)), 0
    for module, after in edits(copy, "edited = 1"):
        changed = {name for name, digest in after.items() if digest != before[name]}
        assert changed == {name for name, found in reach.items() if module in found}, module
        touched += bool(changed)
    assert touched > 100
    assert states(Code(copy)) == before


def test_comments_cost_nothing(copy: Path) -> None:
    """In every module at once."""
    before, texts = states(Code(copy)), dict[Path, str]()
    for module in names(copy):
        file = Code(copy).file(module)
        assert file is not None
        texts[file] = file.read_text(encoding="utf-8")
        file.write_text(f"# a comment\n{texts[file]}\n# another\n", encoding="utf-8")
    after = states(Code(copy))
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
    assert after == before and len(texts) > 200


Dvc = Callable[..., str]


@pytest.fixture
def dvc(tmp_path: Path, warm_python: Warm, monkeypatch: pytest.MonkeyPatch) -> Dvc:
    """DVC in `tmp_path`, stages run by this Python: what a command prints."""
    monkeypatch.chdir(tmp_path)
    path = os.pathsep.join([str(warm_python.folder), os.environ["PATH"]])

    def call(*arguments: str) -> str:
        done = warm_python.run("-m", "dvc", *arguments, environment={**os.environ, "PATH": path})
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def changed_stages(dvc: Dvc) -> set[str]:
    """The stages that DVC would run because of their code, by name without a period."""
    status = json.loads(dvc("status", "--json"))
    deps = {stage: str(said) for stage, said in status.items()}
    return {stage.split("@")[0] for stage, said in deps.items() if "data/code/" in said}


@pytest.mark.slow
def test_dvc_runs_the_stages_that_can_reach_an_edit(tmp_path: Path, dvc: Dvc) -> None:
    """Real DVC on made-up results of all stages: nothing to do, then two edits, a comment beside each."""
    for package in (*PACKAGES, "suites"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    dvc("init", "--no-scm", "--quiet")
    periods = list(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["periods"].items())
    for stage in DVC.values():
        for item in [None] if "do" not in stage else periods:
            block = stage.get("do", stage)
            for out in [*block.get("outs", []), *block.get("metrics", [])]:
                name = out if isinstance(out, str) else next(iter(out))
                name = name.replace("${key}", item[0]) if item else name
                file = tmp_path / name if Path(name).suffix else tmp_path / name / "made-up"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(name, encoding="utf-8")
    inner = ("model/source.json", "ingest/interactions.parquet", "ingest/labels.parquet")
    for name in (*inner, *(f"{of}/{t}.parquet" for of in ("split", "score_base") for t, _ in periods)):
        (tmp_path / "data" / name).write_text(name, encoding="utf-8")
    dvc("repro", "--single-item", "code")
    dvc("commit", "--force")
    assert changed_stages(dvc) == set()
    split = {name for name in STAGES if reaches(name, "spring.data.split")}
    for file, expected in {
        "spring/data/split.py": split,
        "tasks/generate.py": {"generate", "transfer"},
    }.items():
        texts = {tmp_path / one: text for one, text in ((file, "edited = 1"), (COMMENTED, "# words"))}
        before = {path: path.read_text(encoding="utf-8") for path in texts}
        for path, text in texts.items():
            path.write_text(f"{before[path]}\n{text}\n", encoding="utf-8")
        dvc("repro", "--single-item", "code")
        assert changed_stages(dvc) == expected, file
        for path, text in before.items():
            path.write_text(text, encoding="utf-8")


def reaches(stage: str, module: str) -> bool:
    return module in reached(f"tasks.{stage}")


BEFORE = '''"""A module."""
from dataclasses import dataclass

@dataclass
class Pair:
    first: int
    second: int = 2

def add(a: int, b: int = 1) -> int:
    """A sum."""
    return a + b
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ('"""A module."""', '"""Other words."""', True),
        ('"""A module."""\n', "", True),
        ('    """A sum."""\n', "", True),
        ("a: int, b: int = 1) -> int", "a, b = 1)", True),
        ("first: int", "first: str  # why", True),
        ("    return a + b", "\n    return (a\n            + b)", True),
        ("a + b", "a - b", False),
        ("b: int = 1", "b: int = 2", False),
        ("first: int\n    second: int = 2", "second: int = 2\n    first: int", False),
        ("first: int", "third: int", False),
        ("second: int = 2", "second: int = 3", False),
        ("def add", "def sub", False),
        ("@dataclass\n", "", False),
        ("    return a + b", '    "A sum."\n    "Twice."\n    return a + b', False),
    ],
)
def test_words_cost_nothing_and_all_else_counts(old: str, new: str, same: bool, tmp_path: Path) -> None:
    assert old in BEFORE
    file = tmp_path / "spring" / "one.py"
    file.parent.mkdir()
    (file.parent / "__init__.py").write_text("", encoding="utf-8")
    found = set()
    for text in (BEFORE, BEFORE.replace(old, new)):
        file.write_text(text, encoding="utf-8")
        found.add(Code(tmp_path).digest("spring.one"))
    assert (len(found) == 1) == same


def test_imports_inside_functions_and_for_types_count(tmp_path: Path) -> None:
    """By hand: a function of one imports two, two imports three for an annotation alone; four is apart."""
    package = tmp_path / "spring"
    package.mkdir()
    texts = {
        "__init__": "",
        "one": "def late():\n    from spring.two import x",
        "two": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from spring import three, gone",
        "three": "import os, numpy",
        "four": "from spring.one import late",
    }
    for name, text in texts.items():
        (package / f"{name}.py").write_text(text, encoding="utf-8")
    assert Code(tmp_path).closure("spring.one") == ["spring", "spring.one", "spring.three", "spring.two"]
    assert Code(tmp_path).closure("spring.three") == ["spring", "spring.three"]
    with pytest.raises(ValueError, match=r"spring\.missing is no module"):
        Code(tmp_path).closure("spring.missing")


def test_the_name_counts(tmp_path: Path) -> None:
    """Two modules of the same text are not the same code."""
    (tmp_path / "spring").mkdir()
    for name in ("__init__", "one", "two"):
        (tmp_path / "spring" / f"{name}.py").write_text("x = 1", encoding="utf-8")
    code = Code(tmp_path)
    assert code.digest("spring.one") != code.digest("spring.two")


def test_a_method_that_is_handed_in_brings_its_code() -> None:
    """What no import of the cell's module tells: the classes of its settings."""
    lora = Lora(r=2, alpha=2, dropout=0.0, target_modules=("q_proj",))
    settings = {"lora": lora, "lr": 0.1, "weight_decay": 0, "warmup_ratio": 0, "epochs": 1, "batch_size": 1}
    rule = EwcLora(method="ewc-lora", lmbda=1, gamma=1)
    how = Learning(**settings, grad_clip=None, replay_share=0, rule=rule)
    experts = Proper(
        name="proper",
        level="user",
        scope="population",
        count=2,
        constraint=0.1,
        user_embedding=2,
        population_epochs=1,
        group_epochs=1,
    )
    join = Cope(by="cope", alpha=0.1, plausible=0.1)
    cope = Decoding(repetition_penalty=1, max_new_tokens=1, join=join)
    assert "spring.rivals.ewc_lora" in modules_of({"how": how})
    assert "spring.rivals.cope" in modules_of([cope])
    assert "spring.rivals.cope" not in modules_of(cope.model_copy(update={"join": Mixture()}))
    assert "spring.rivals.proper.fits" in modules_of((1, {"over": Layered(lora, experts, "key", ROOT)}))
    assert modules_of({"rows": [["a", 1, None]]}) == set()


@pytest.mark.parametrize("cell", CELLS)
def test_cells_do_not_depend_on_what_may_be_set(cell: str) -> None:
    """Or every new setting and every new rival would have everything computed again."""
    assert not [module for module in Code().closure(cell) if module.startswith("spring.settings")]


def test_every_stage_depends_on_its_own_code() -> None:
    for name in STAGES:
        deps = DVC[name].get("do", DVC[name])["deps"]
        source = ["data/code/source"] if name == "ingest" else []
        assert [dep for dep in deps if dep.startswith("data/code")] == [f"data/code/{name}", *source]
        assert not [dep for dep in deps if dep.endswith(".py") or dep.startswith("spring")]


def test_what_was_read_is_remembered_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another process too; an edit is read anew, and a memory that is damaged or shut is no loss."""
    kept = tmp_path / "kept" / "code.json"
    (tmp_path / "spring").mkdir()
    (tmp_path / "spring/__init__.py").touch()
    one = tmp_path / "spring/one.py"

    def digest() -> str:
        monkeypatch.setattr("spring.code.MEMORY", Memory(kept))
        return Code(tmp_path).digest("spring.one")

    one.write_text("a = 1\n")
    first = digest()
    assert digest() == first and len(json.loads(kept.read_text())) == 2
    monkeypatch.setattr("ast.parse", lambda text: pytest.fail("read again"))
    assert digest() == first
    monkeypatch.undo()
    one.write_text("a = 2\n")
    assert digest() != first and len(json.loads(kept.read_text())) == 3
    one.write_text("a = 1\n")
    for damage in ("{", "[1, 2]", "null", "7"):
        kept.write_text(damage)
        assert digest() == first
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.write_text("a file in the way")
    assert digest() == first
