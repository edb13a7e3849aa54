"""What is installed, from which files, and what the project's papers say of it."""

from __future__ import annotations

import ast
import json
import re
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from delen.daemon.settings import SETTINGS
from delen.version import VERSION

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ["delen", "api", "policies", "power", "multiexit_models"]
SOURCES = [file for name in PACKAGES for file in sorted((REPOSITORY / name).rglob("*.py"))]
TESTS = sorted((REPOSITORY / "tests").rglob("*.py"))
SHIPPED = REPOSITORY / "multiexit_models" / "bundles" / "cifar10-resnet"


def requirements(extra: str | None) -> set[str]:
    """The packages that delen needs by itself, or that ``extra`` adds."""
    found = set()
    for line in requires("delen") or []:
        name, marker = re.match(r"([\w-]+)[^;]*(?:;(.*))?", line).groups()
        named = re.search(r"extra == ['\"](\w+)['\"]", marker or "")
        if (named and named[1]) == extra:
            found.add(name.lower())
    return found


def missing_extras() -> list[tuple[str, str, str]]:
    """Where a message names what is missing and the extra that has it: file, package, extra."""
    found = []
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "MissingExtra":
                what, extra = node.args[:2]
                if isinstance(what, ast.JoinedStr):
                    what = what.values[0]
                if isinstance(what, ast.Constant) and isinstance(extra, ast.Constant):
                    package = what.value.split()[0].lower()
                    found.append((str(file.relative_to(REPOSITORY)), package, extra.value))
    return found


@pytest.mark.parametrize(("file", "package", "extra"), missing_extras())
def test_a_message_names_the_extra_that_has_the_package(
    file: str, package: str, extra: str
) -> None:
    assert package in requirements(extra)


def test_the_messages_are_found() -> None:
    assert {package for _, package, _ in missing_extras()} >= {
        "matplotlib",
        "nvidia-ml-py",
        "onnxruntime",
        "pillow",
        "soundfile",
        "soxr",
        "torch",
        "torchvision",
        "transformers",
    }


def test_the_sdk_is_light_and_extras_add_to_it() -> None:
    assert requirements(None) == {"numpy", "msgspec"}
    assert requirements("daemon") >= {"flask", "uvicorn", "onnxruntime", "pillow"}
    assert requirements("jetson") - requirements("daemon") == {"onnxruntime-gpu", "jetson-stats"}
    assert requirements("daemon") - requirements("jetson") == {"onnxruntime"}
    assert requirements("train") >= requirements("torch") | requirements("plot")


@pytest.mark.parametrize(
    ("machine", "python", "is_there"),
    [("aarch64", "3.10", False), ("aarch64", "3.12", True), ("x86_64", "3.10", True)],
)
def test_the_jetson_extra_needs_no_wheel_that_the_public_index_lacks(
    machine: str, python: str, is_there: bool
) -> None:
    lines = [Requirement(line) for line in requires("delen") or []]
    (runtime,) = (line for line in lines if line.name == "onnxruntime-gpu")
    assert runtime.marker is not None
    board = {"extra": "jetson", "platform_machine": machine, "python_version": python}
    assert runtime.marker.evaluate(board) is is_there


def test_the_changelog_starts_with_this_version() -> None:
    titles = re.findall(r"^## (\S+?),? ", (REPOSITORY / "CHANGELOG.md").read_text(), re.M)
    assert titles[0] == VERSION


def test_the_extras_that_papers_name_are_there() -> None:
    papers = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md"), *SOURCES]
    named = {
        extra
        for paper in papers
        for listed in re.findall(r"delen\[([\w,]+)\]", paper.read_text())
        for extra in listed.split(",")
    }
    assert named >= {"daemon", "jetson", "nvml", "train", "torch"}
    for extra in named:
        assert requirements(extra), extra


@pytest.mark.parametrize("files", [SOURCES, TESTS], ids=["sources", "tests"])
def test_the_oldest_python_can_read_all(files: list[Path]) -> None:
    assert 'python_requires=">=3.10"' in setup_py()
    for file in files:
        ast.parse(file.read_text(), str(file), feature_version=(3, 10))


def setup_py() -> str:
    return (REPOSITORY / "setup.py").read_text()


# --- docker/


def instructions() -> list[tuple[str, str]]:
    """What the Dockerfile does: instruction and arguments, with lines that go on joined."""
    text = (REPOSITORY / "docker" / "Dockerfile").read_text()
    lines = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", " ").splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


def test_the_image_gets_all_that_is_installed() -> None:
    copied = [arguments.split()[:-1] for name, arguments in instructions() if name == "COPY"]
    sources = {source for each in copied for source in each}
    for source in sources:
        assert (REPOSITORY / source).exists(), source
    assert sources >= {*PACKAGES, "setup.py", "pyproject.toml", "MANIFEST.in", "README.md"}
    assert re.search(r"TOP = (\[.*\])", setup_py())[1] == json.dumps(PACKAGES)


def test_the_image_installs_an_extra_that_is_there_and_runs_the_daemon() -> None:
    given = dict(instructions())
    extras = [arguments for name, arguments in instructions() if name == "ARG"]
    assert "EXTRA=daemon" in extras
    assert '".[${EXTRA},audio]"' in given["RUN"]
    assert json.loads(given["CMD"]) == ["delen-daemon"]
    assert given["USER"] == "delen" and "useradd" in given["RUN"]
    variables = re.findall(r"DELEN_(\w+?)__(\w+)=", given["ENV"])
    known = {setting.name for setting in SETTINGS}
    assert {f"{section}.{key}".lower() for section, key in variables} <= known


# --- README.md


def test_the_readmes_table_is_the_bundles() -> None:
    exits = json.loads((SHIPPED / "manifest.json").read_text())["exits"]
    rows = re.findall(
        r"^\| (\d) \| ([\d.]+) M \| (\d+) % \| ([\d.]+) % \|$",
        (REPOSITORY / "README.md").read_text(),
        re.M,
    )
    whole = exits[-1]["macs"]
    assert rows == [
        (
            str(number),
            f"{exit['macs'] / 1e6:.1f}",
            f"{100 * exit['macs'] / whole:.0f}",
            f"{100 * exit['test_accuracy']:.1f}",
        )
        for number, exit in enumerate(exits)
    ]


def test_the_readmes_claim_of_leaving_early_is_the_reports() -> None:
    claim = re.search(
        r"confidence reaches ([\d.]+) costs (\d+) % of the full path.*?within ([\d.]+) points",
        (REPOSITORY / "README.md").read_text(),
        re.S,
    )
    report = (SHIPPED / "report.md").read_text()
    rows = {
        threshold: (float(accuracy), float(cost))
        for threshold, accuracy, cost in re.findall(
            r"^\| ([\d.]+) \| ([\d.]+)% \| ([\d.]+)% \| [\d.]+% \|", report, re.M
        )
    }
    accuracy, cost = rows[claim[1]]
    assert f"{cost:.0f}" == claim[2]
    assert rows["1"][0] - accuracy <= float(claim[3]) + 1e-9
