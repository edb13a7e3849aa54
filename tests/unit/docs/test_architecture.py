"""docs/architecture.md names what is there, and its walks are short."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
FILE = re.compile(r"`((?:delen|policies|power|api|multiexit_models)/[\w/]+\.py)`")
FILES = sorted(set(FILE.findall(PAGE)))
ROOMS = re.findall(r"^\| `([\w/]+)/` \|", PAGE, re.MULTILINE)
STEP = re.compile(r"^\| \d+ \| `([^`]+)` \| `(\w+)` \|", re.MULTILINE)
PURE = [
    "policies/plan",
    "policies/exit",
    "policies/dispatch",
    "policies/energy",
    "policies/client",
    "policies/fleet",
    "delen/scheduler",
    "power/attribution",
]
IMPURE_MODULES = {
    *("time", "datetime", "threading", "_thread", "multiprocessing", "concurrent", "asyncio"),
    *("os", "io", "pathlib", "shutil", "tempfile", "socket", "subprocess", "urllib", "http"),
}
IMPURE_CALLS = {"open", "print", "input"}


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _names(file: Path) -> set[str]:
    """What the code of ``file`` defines or uses."""
    names: set[str] = set()
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
    return names


def _impure(file: Path) -> set[str]:
    """The modules that ``file`` imports, and the functions that it calls, beyond pure code."""
    modules: set[str] = set()
    calls: set[str] = set()
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            calls.add(node.func.id)
    return modules & IMPURE_MODULES | calls & IMPURE_CALLS


def test_the_page_names_files_and_rooms() -> None:
    assert len(FILES) > 40
    assert len(ROOMS) > 20


@pytest.mark.parametrize("file", FILES)
def test_every_file_named_exists(file: str) -> None:
    assert (ROOT / file).is_file()


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_named_exists(room: str) -> None:
    assert (ROOT / room).is_dir()


def test_every_room_of_delen_is_named() -> None:
    rooms = {file.parent.name for file in (ROOT / "delen").glob("*/__init__.py")}
    assert "engine" in rooms
    assert {room for room in rooms if f"| `delen/{room}/` |" not in PAGE} == set()


@pytest.mark.parametrize(
    ("title", "most"),
    [
        ("From socket to answer", 20),
        ("From sensor to receipt", 10),
        ("From folder to served bundle", 12),
    ],
)
def test_a_walk_is_short_and_names_what_is_there(title: str, most: int) -> None:
    section = PAGE.split(f"### {title}\n")[1].split("\n#")[0]
    steps = STEP.findall(section)
    files = {file for file, _ in steps}
    assert 5 <= len(steps) <= most
    assert len(files) == len(steps)
    consulted = set(FILE.findall(section)) - files
    assert f"{len(steps)} files, which consult {len(consulted)} others." in section
    assert [(file, name) for file, name in steps if name not in _names(ROOT / file)] == []


@pytest.mark.parametrize("package", PURE)
def test_decisions_know_no_clock_no_threads_and_no_files(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    assert {file.name: found for file in files if (found := _impure(file))} == {}


def test_the_layers_are_those_of_the_import_contract() -> None:
    contract = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("layers = [")[1]
    layers = re.findall(r'"([^"]+)"', contract.split("]")[0])
    assert len(layers) > 10
    assert "```\n" + "\n".join(layers) + "\n```" in PAGE
