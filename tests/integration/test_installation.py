"""delen as it is installed: from a source distribution, through its wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import numpy
import pytest

from delen.version import VERSION
from tests.builders.daemon import clean_environment

setuptools = pytest.importorskip(
    "setuptools", reason="wheels are built without a network by setuptools"
)
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
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of a copy of the repository."""
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
    (made,) = (work / "sdist").glob("delen-*.tar.gz")
    return made


@pytest.fixture(scope="module")
def installed(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the wheel of the source distribution is installed."""
    work = tmp_path_factory.mktemp("wheel")
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


def files_in(folder: Path) -> dict[Path, int]:
    """The size of each file in ``folder``, but for those that Python keeps there."""
    return {
        file.relative_to(folder): file.stat().st_size
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


@pytest.mark.parametrize("name", PACKAGES)
def test_modules_and_data_are_installed_as_they_are(installed: Path, name: str) -> None:
    assert files_in(installed / name) == files_in(REPOSITORY / name)
    assert Path("py.typed") in files_in(installed / name)


def test_its_metadata_name_the_version_and_the_pythons(installed: Path) -> None:
    (found,) = distributions(path=[str(installed)])
    said = found.metadata
    assert said["Version"] == VERSION
    assert said["Requires-Python"] == ">=3.10"
    pythons = {line for line in said.get_all("Classifier") if re.search(r":: 3\.\d+$", line)}
    assert pythons == {f"Programming Language :: Python :: 3.{each}" for each in (10, 11, 12, 13)}
    assert {Path(file.name).name for file in found.files or []} >= {"LICENSE", "METADATA"}


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


ANSWER = """
import sys
import urllib.request

import delen
import numpy

image = numpy.zeros((32, 32, 3), numpy.uint8)
with delen.Client(sys.argv[1]) as client:
    result = client.infer(image)
request = urllib.request.Request(
    sys.argv[1] + "/v1/infer", image.tobytes(), {"Content-Type": "application/octet-stream"}
)
with urllib.request.urlopen(request) as response:
    assert response.status == 200
    assert f'"label":"{result.label}"' in response.read().decode()
print(delen.__path__[0])
"""


def test_an_empty_environment_with_the_source_distribution_answers_an_image(
    sdist: Path, tmp_path: Path
) -> None:
    """pip builds and installs delen; what it depends on is read from where it lies already."""
    home = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=tmp_path)
    python = home / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    offline = ("--ignore-installed", "--no-deps", "--no-build-isolation", "--no-index")
    others = [file.parents[1] for file in (Path(numpy.__file__), Path(setuptools.__file__))]
    borrowed = os.pathsep.join(map(str, others))
    run(
        *pip,
        "install",
        "--ignore-installed",
        *offline,
        f"{sdist}[daemon]",
        cwd=tmp_path,
        PYTHONPATH=borrowed,
    )
    variables = clean_environment(PYTHONPATH=borrowed, DELEN_STATE__PATH=str(tmp_path / "state"))
    variables |= {"DELEN_SERVER__PORT": "0", "DELEN_SERVER__SOCKET": ""}
    with subprocess.Popen(
        [home / "bin" / "delen-daemon"],
        cwd=tmp_path,
        env=variables,
        stderr=subprocess.PIPE,
        text=True,
    ) as daemon:
        assert daemon.stderr is not None
        try:
            said: list[str] = []
            for line in daemon.stderr:
                said.append(line)
                if found := re.search(r"ready on (http://[^\s,]+)", line):
                    break
            assert found, "".join(said)
            told = run(python, "-c", ANSWER, found[1], cwd=tmp_path, PYTHONPATH=borrowed)
        finally:
            daemon.terminate()
            daemon.communicate()
    assert Path(told.strip()).is_relative_to(home)
    assert daemon.returncode == 0
