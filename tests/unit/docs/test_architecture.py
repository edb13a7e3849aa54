"""docs/architecture.md names what is there, and its walks are short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
FILE = re.compile(r"`((?:delen|policies|power|api|multiexit_models)/[\w/]+\.py)`")
STEP = re.compile(r"^\| \d+ \| `([^`]+)` \| `(\w+)` \|", re.MULTILINE)


def _steps(title: str) -> list[tuple[str, str]]:
    """File and name of each step of the walk under ``title``."""
    section = PAGE.split(f"### {title}\n")[1].split("\n#")[0]
    return STEP.findall(section)


@pytest.mark.parametrize("file", sorted(set(FILE.findall(PAGE))))
def test_every_file_named_exists(file: str) -> None:
    assert (ROOT / file).is_file()


@pytest.mark.parametrize("package", re.findall(r"^\| `([\w/]+)/` \|", PAGE, re.MULTILINE))
def test_every_room_named_exists(package: str) -> None:
    assert (ROOT / package).is_dir()


def test_every_room_of_delen_is_named() -> None:
    rooms = {file.parent.name for file in (ROOT / "delen").glob("*/__init__.py")}
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
    steps = _steps(title)
    assert 5 <= len(steps) <= most
    assert len({file for file, _ in steps}) == len(steps)
    absent = [
        (file, name)
        for file, name in steps
        if not re.search(rf"\b{name}\b", (ROOT / file).read_text(encoding="utf-8"))
    ]
    assert absent == []


def test_the_layers_are_those_of_the_import_contract() -> None:
    contract = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("layers = [")[1]
    layers = re.findall(r'"([^"]+)"', contract.split("]")[0])
    assert "\n".join(layers) in PAGE
