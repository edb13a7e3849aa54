"""A device has no Ray: one module of the hub imports it, and nothing else does."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
PACKAGES = ("delen", "api", "policies", "power", "multiexit_models")


def imports_ray(file: Path) -> bool:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        if any(name.split(".")[0] == "ray" for name in names):
            return True
    return False


def test_one_module_imports_ray() -> None:
    files = [file for name in PACKAGES for file in (ROOT / name).rglob("*.py")]
    assert len(files) > 100
    found = [str(file.relative_to(ROOT)) for file in files if imports_ray(file)]
    assert found == ["delen/fleet/ray_actors.py"]
