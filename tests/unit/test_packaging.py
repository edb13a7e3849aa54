"""What is installed, from which files, and what the project's papers say of it."""

from __future__ import annotations

import ast
import json
import re
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from delen.daemon.service import UNITS
from delen.daemon.settings import SETTINGS
from delen.profile.device import CPU_INFO, DEVICE_TREE_MODEL
from delen.version import VERSION
from power.modes.nvpmodel import CONF, STATUS

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

DOCKER = REPOSITORY / "docker"
IMAGES = ["Dockerfile", "jetson.Dockerfile"]


def instructions(image: str) -> list[tuple[str, str]]:
    """What a Dockerfile does: instruction and arguments, with lines that go on joined."""
    text = re.sub(r"^#.*\n", "", (DOCKER / image).read_text(), flags=re.M)
    lines = text.replace("\\\n", " ").splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_gets_all_that_is_installed(image: str) -> None:
    copied = [arguments.split()[:-1] for name, arguments in instructions(image) if name == "COPY"]
    sources = {source for each in copied for source in each if not source.startswith("-")}
    sources -= {"/opt/delen"}
    for source in sources:
        assert (REPOSITORY / source).exists(), source
    assert sources >= {*PACKAGES, "setup.py", "pyproject.toml", "MANIFEST.in", "README.md"}
    assert re.search(r"TOP = (\[.*\])", setup_py())[1] == json.dumps(PACKAGES)
    sent = {
        line[1:] for line in (REPOSITORY / ".dockerignore").read_text().split() if line[0] == "!"
    }
    assert sources <= sent


@pytest.mark.parametrize(("image", "extra"), [(IMAGES[0], "daemon"), (IMAGES[1], "jetson")])
def test_an_image_runs_the_daemon_as_a_user_without_rights(image: str, extra: str) -> None:
    given = dict(instructions(image))
    arguments = [arguments for name, arguments in instructions(image) if name == "ARG"]
    assert f"EXTRAS={extra},audio" in arguments and requirements(extra)
    (base,) = (each for each in arguments if each.startswith("BASE="))
    assert re.search(r":(\w+-\d{8}-slim|r\d+\.\d+\.\d+)$", base), "the base is not pinned"
    assert json.loads(given["CMD"]) == ["delen-daemon"]
    assert given["USER"] == "10001:10001" and "--uid 10001" in given["RUN"]
    assert "/readyz" in given["HEALTHCHECK"]
    variables = re.findall(r"DELEN_(\w+?)__(\w+)=", given["ENV"])
    known = {setting.name for setting in SETTINGS}
    assert {f"{section}.{key}".lower() for section, key in variables} <= known


@pytest.mark.parametrize("more", [[], ["compose.jetson.yaml"]])
def test_compose_shows_the_daemon_what_sensors_are_read_from_and_no_more(more: list[str]) -> None:
    services = [
        yaml.safe_load((DOCKER / file).read_text())["services"]["delen"]
        for file in ("compose.yaml", *more)
    ]
    root = services[0]["environment"]["DELEN_POWER__ROOT"]
    volumes = [volume.split(":") for service in services for volume in service["volumes"]]
    shown = {target for _, target, *rights in volumes if rights == ["ro"]}
    assert shown >= {f"{root}/sys", f"{root}/proc/stat", f"{root}/{CPU_INFO}"}
    if more:
        board = f"{root}/{DEVICE_TREE_MODEL}".removesuffix("/model")
        assert shown >= {board, f"{root}/{CONF}", f"{root}/{STATUS}".removesuffix("/status")}
    assert [target for _, target, *rights in volumes if not rights] == ["/var/lib/delen"]
    assert all(port.startswith("127.0.0.1:") for port in services[0]["ports"])
    assert services[0]["read_only"] and services[0]["cap_drop"] == ["ALL"]
    assert not any(service.get("privileged") for service in services)


# --- deb/


def test_the_package_has_the_units_and_the_programs() -> None:
    rules = (REPOSITORY / "deb" / "debian" / "rules").read_text()
    for file in (UNITS / "system").iterdir():
        assert file.name in rules
    linked = (REPOSITORY / "deb" / "debian" / "delen.links").read_text()
    programs = set(re.findall(r'"([\w-]+)=delen\.\w+\.main:main"', setup_py()))
    assert programs == set(re.findall(r"usr/bin/([\w-]+)", linked))
    assert programs == set(re.search(r"PROGRAMS := (.*)", rules)[1].split())


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
