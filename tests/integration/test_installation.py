"""delen as it is installed: from a source distribution, through its wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("setuptools", reason="wheels are built without a network by setuptools")
pytest.importorskip("pip", reason="pip installs the wheel")

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("delen", "api", "policies", "power", "multiexit_models")
PAPERS = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    ended = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the wheel of the source distribution is installed."""
    work = tmp_path_factory.mktemp("installation")
    source = work / "source"
    source.mkdir()
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, source / name, ignore=ignored)
    for name in PAPERS:
        shutil.copy(REPOSITORY / name, source)
    build = "from setuptools import build_meta; print(build_meta.build_sdist('../sdist'))"
    run(sys.executable, "-c", build, cwd=source)
    (sdist,) = (work / "sdist").glob("delen-*.tar.gz")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir")
    offline = ("--no-deps", "--no-build-isolation", "--no-index")
    run(*pip, "wheel", *offline, "-w", work, sdist, cwd=work)
    (wheel,) = work.glob("delen-*.whl")
    run(*pip, "install", "--no-deps", "--no-index", "--target", work / "target", wheel, cwd=work)
    return work / "target"


@pytest.mark.parametrize("program", ["delen", "delen-daemon"])
def test_its_programs_run_from_there(installed: Path, tmp_path: Path, program: str) -> None:
    script = installed / "bin" / program
    told = run(sys.executable, script, "--help", cwd=tmp_path, PYTHONPATH=str(installed))
    assert f"usage: {program}" in told


def test_its_packages_come_from_there_and_from_nowhere_else(
    installed: Path, tmp_path: Path
) -> None:
    listing = f"import {', '.join(PACKAGES)}\n"
    listing += "".join(f"print({name}.__path__[0])\n" for name in PACKAGES)
    told = run(sys.executable, "-c", listing, cwd=tmp_path, PYTHONPATH=str(installed))
    assert told.split() == [str(installed / name) for name in PACKAGES]
    assert not (installed / "tests").exists()
    assert not (installed / "benchmarks").exists()


def test_every_module_and_the_shipped_bundles_are_installed(installed: Path) -> None:
    for name in PACKAGES:
        ours = {str(file.relative_to(REPOSITORY)) for file in (REPOSITORY / name).rglob("*.py")}
        theirs = {str(file.relative_to(installed)) for file in (installed / name).rglob("*.py")}
        assert theirs == ours
    assert (installed / "delen" / "py.typed").exists()
    bundles = Path("multiexit_models") / "bundles"
    for bundle in (REPOSITORY / bundles).iterdir():
        assert (installed / bundles / bundle.name / "manifest.json").is_file()
        for segment in bundle.glob("*.onnx"):
            copy = installed / bundles / bundle.name / segment.name
            assert copy.read_bytes() == segment.read_bytes()


FIND = """
from importlib.metadata import entry_points, version
from pathlib import Path

import multiexit_models
from delen.bundle.manifest import load_bundle
from delen.version import VERSION

assert version("delen") == VERSION
for group in ("exit_policies", "dispatch_policies", "energy_controllers"):
    for point in entry_points(group=f"delen.{group}"):
        assert callable(point.load()), point
        print(point.name)
print(load_bundle(Path(multiexit_models.__path__[0]) / "bundles" / "cifar10-resnet").name)
"""


def test_what_is_installed_finds_its_policies_and_its_network(
    installed: Path, tmp_path: Path
) -> None:
    told = run(sys.executable, "-c", FIND, cwd=tmp_path, PYTHONPATH=str(installed)).split()
    assert told[-1] == "cifar10-resnet"
    assert set(told) >= {"bounds", "conditions", "value", "fifo", "edf", "delen", "price"}
