"""Which code a result depends on: derived from imports, never listed by hand.

A module's closure is itself and every module of this project that it or one of them imports anywhere: at the
top, inside functions, and for type checking alone, since the type of an argument tells whose code comes with
it. A digest is over the syntax trees of a closure without docstrings, comments and annotations: wording costs
nothing, any other edit changes the digest of every module that can reach it.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = ("spring", "tasks")
PLAIN = {str, int, float, bool, type(None)}  # in a value there are thousands of them


class Code:
    """The modules of `PACKAGES` below `root`, as their files are when they are first asked for."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self._files: dict[str, Path | None] = {}
        self._read: dict[str, tuple[frozenset[str], str]] = {}
        self._imports: dict[str, frozenset[str]] = {}

    def file(self, module: str) -> Path | None:
        """The file of a module or package; null: it is none of this project."""
        if module not in self._files:
            path = self.root.joinpath(*module.split("."))
            inside = module.split(".")[0] in PACKAGES
            found = (path.with_suffix(".py"), path / "__init__.py") if inside else ()
            self._files[module] = next((file for file in found if file.is_file()), None)
        return self._files[module]

    def imports(self, module: str) -> frozenset[str]:
        """The modules of this project that one imports, the packages around them too."""
        if module not in self._imports:
            around = {name for named in self._module(module)[0] for name in _around(named)}
            self._imports[module] = frozenset(name for name in around if self.file(name))
        return self._imports[module]

    def closure(self, *modules: str) -> list[str]:
        """These modules and all that they can reach, by name. `ValueError` for one that is not there."""
        found: set[str] = set()
        waiting = [name for module in modules for name in _around(module)]
        while waiting:
            module = waiting.pop()
            if self.file(module) is None:
                raise ValueError(f"{module} is no module of {', '.join(PACKAGES)} below {self.root}")
            if module not in found:
                found.add(module)
                waiting += self.imports(module)
        return sorted(found)

    def digest(self, *modules: str) -> str:
        """sha256 of what the closure of these modules does."""
        lines = [f"{module} {self._module(module)[1]}\n" for module in self.closure(*modules)]
        MEMORY.keep()
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def _module(self, module: str) -> tuple[frozenset[str], str]:
        """What a module imports, and a digest of what it does. `SyntaxError` names its file."""
        if module not in self._read:
            file = self.file(module)
            assert file is not None, module
            try:
                self._read[module] = MEMORY.read(file.read_text(encoding="utf-8"))
            except SyntaxError as error:
                error.filename = str(file)
                raise
        return self._read[module]


@cache
def code_digest(*modules: str) -> str:
    """The digest of modules of the running program, as their files are when it is first asked for."""
    return _running().digest(*modules)


@cache
def _running() -> Code:
    return Code()


def modules_of(value: Any) -> set[str]:
    """The modules of this project whose classes take part in a value: what its methods do counts too."""
    inner: Iterable[Any] = ()
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        inner = value
    elif hasattr(type(value), "model_fields"):  # pydantic's, which is not imported for this
        return set(_of_settings(Same(value)))
    elif dataclasses.is_dataclass(value):
        inner = (getattr(value, field.name) for field in dataclasses.fields(value))
    return _with_own(value, inner)


def _with_own(value: Any, inner: Iterable[Any]) -> set[str]:
    """The module of a value's class, and those of what it holds."""
    own = type(value).__module__
    found = {own} if own.split(".")[0] in PACKAGES else set()
    return found.union(*(modules_of(one) for one in inner if type(one) not in PLAIN))


class Same:
    """A value as itself, whatever it is equal to."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


@lru_cache(maxsize=256)
def _of_settings(model: Same) -> frozenset[str]:
    """`modules_of` a parameter model, which never changes: thousands of keys have the same one."""
    value = model.value
    return frozenset(_with_own(value, (getattr(value, name) for name in type(value).model_fields)))


def _around(module: str) -> Iterator[str]:
    """A module and the packages around it, whose __init__ runs before it."""
    parts = module.split(".")
    return (".".join(parts[:i]) for i in range(1, len(parts) + 1))


class Memory:
    """What texts of modules were found to import and to do, by their content: read once on a machine.

    It lies with Python's own compiled files, is only ever derived from the texts, and may be deleted.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.fresh = False

    @cached_property
    def known(self) -> dict[str, tuple[list[str], str]]:
        """Imports and digest by `key`; empty where nothing is kept or it cannot be read."""
        try:
            return dict(json.loads(self.file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return {}

    @cached_property
    def rules(self) -> str:
        """What the answers depend on beside a text: this file."""
        return Path(__file__).read_text(encoding="utf-8")

    def read(self, text: str) -> tuple[frozenset[str], str]:
        """The names that a module's text imports, and the digest of what it does."""
        key = hashlib.sha256(f"{self.rules}\0{text}".encode()).hexdigest()
        if key not in self.known:
            tree = ast.parse(text)
            named = sorted({name for node in ast.walk(tree) for name in _named(node)})
            self.known[key] = named, hashlib.sha256(repr(_plain(tree)).encode()).hexdigest()
            self.fresh = True
        named, digest = self.known[key]
        return frozenset(named), digest

    def keep(self) -> None:
        """Writes what is new, whole or not at all, with the latest `KEPT` texts; nothing where it may not."""
        if not self.fresh:
            return
        self.fresh = False
        latest = dict(list(self.known.items())[-KEPT:])
        with suppress(OSError):
            self.file.parent.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.file.parent) as folder:
                part = Path(folder) / "part"
                part.write_text(json.dumps(latest), encoding="utf-8")
                part.replace(self.file)


KEPT = 4096
MEMORY = Memory(Path(__file__).parent / "__pycache__" / "code.json")


def _named(node: ast.AST) -> Iterator[str]:
    """What an import statement may mean: `from a import b` the module a, and a.b if that is one."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are written with the whole name"
        yield str(node.module)
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


DEFINITIONS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
UNREAD = {"annotation", "returns", "ctx", "kind", "type_comment", "type_ignores", "type_params"}


def _plain(node: Any) -> Any:
    """A syntax tree as nested tuples, the same under every version of Python, without what no run reads."""
    if isinstance(node, list):
        return tuple(_plain(one) for one in node)
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = dict(ast.iter_fields(node))
    if isinstance(node, DEFINITIONS) and ast.get_docstring(node, clean=False) is not None:
        parts["body"] = parts["body"][1:]
    kept = ((name, part) for name, part in parts.items() if name not in UNREAD and part not in (None, []))
    return (type(node).__name__, *((name, _plain(part)) for name, part in kept))
