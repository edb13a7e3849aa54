"""Real daemons, each a process of its own, and real inputs for them."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import delen
from benchmarks.soak import lend_profiles
from benchmarks.state import state_sharing
from benchmarks.throttle import ThrottledLink
from delen.bundle.manifest import PROFILES, read_manifest
from delen.core.atomic_file import write_atomically
from delen.profile.profile import Disturbance
from delen.profile.reader import load_profile
from tests.board import Board
from tests.builders.daemon import (
    Api,
    Daemon,
    Launcher,
    clean_environment,
    wait_until,
)
from tests.sensors import SensorTree, make_tree, play

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED_BUNDLE = REPOSITORY / "multiexit_models" / "bundles" / "cifar10-resnet"
METERED_WATTS = {"VDD_IN": 7.5, "VDD_CPU_GPU_CV": 2.0, "VDD_SOC": 1.5}


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One state folder for all, so that this device is profiled once, and before they start: by one
    of the processes that run tests, while the others wait."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    measured = root / "measured"
    with (root / "measured.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not measured.exists():
            delen.Engine(state=measured).close()
            call_calm(measured)
    return state_sharing(measured, tmp_path_factory.mktemp("state") / "shared")


def call_calm(state: Path) -> None:
    """The profiles in ``state`` count as those of a calm machine: daemons measure any others again
    as soon as they are idle."""
    for file in (state / PROFILES).rglob("*.json"):
        sizes = [
            replace(each, measured=Disturbance(False, 0.0)) for each in load_profile(file).sizes
        ]
        write_atomically(file, replace(sizes[0], smaller=tuple(sizes[1:])).to_json())


@pytest.fixture(scope="session")
def own_state(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes state folders that share no more than the profiles."""
    return lambda: state_sharing(state, tmp_path_factory.mktemp("state") / "own")


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory, state: Path) -> Iterator[Launcher]:
    launcher = Launcher(tmp_path_factory.mktemp("daemons"), state)
    yield launcher
    launcher.stop_all()


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models.path with a second model, which is the shipped one under the name ``second``."""
    folder = tmp_path_factory.mktemp("bundles")
    copy_bundle(folder / "second", name="second")
    return folder


def copy_bundle(target: Path, **changes: Any) -> Path:
    """The shipped bundle once more, with fields of its manifest changed."""
    shutil.copytree(SHIPPED_BUNDLE, target, ignore=shutil.ignore_patterns("profiles"))
    manifest = target / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changes}, indent=1))
    return target


@pytest.fixture(scope="session")
def daemon(launcher: Launcher, bundles: Path) -> Iterator[Daemon]:
    """The daemon that most tests share: bodies up to 1 MB, and the second model, not loaded. That
    has the profile of the first, of which it is a copy."""
    daemon = launcher.start({"server": {"max_body_mb": 1.0}, "models": {"path": str(bundles)}})
    lend_profiles(launcher.state, "second", read_manifest(bundles / "second")[1])
    yield daemon
    assert daemon.process.poll() is None, f"the shared daemon died:\n{daemon.log()}"
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.log(), daemon.log()


@pytest.fixture
def api(daemon: Daemon) -> Api:
    return daemon.api


@dataclass(frozen=True)
class Metered:
    """A daemon on an Orin NX whose sensors are files."""

    daemon: Daemon
    tree: SensorTree
    board: Board

    @property
    def api(self) -> Api:
        return self.daemon.api


@dataclass
class ProcessorMeter:
    """Watts of a board that draws METERED_WATTS and 4 W for every core that ``process`` keeps busy:
    what requests do shows, or energy would be learnt to cost nothing. Steps of 20 mW show always.
    """

    process: int | None = None
    _before: tuple[float, int] = (0.0, 0)

    def watts(self, elapsed: float) -> dict[str, float]:
        (began, before), ticks = self._before, self._ticks()
        self._before = (elapsed, ticks)
        seconds = (ticks - before) / os.sysconf("SC_CLK_TCK") if before else 0.0
        busy = 4.0 * seconds / max(elapsed - began, 0.01)
        flicker = 0.02 * (int(20 * elapsed) % 2)
        return {**METERED_WATTS, "VDD_IN": METERED_WATTS["VDD_IN"] + flicker + busy}

    def _ticks(self) -> int:
        try:
            fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            return 0
        return int(fields[11]) + int(fields[12])


@pytest.fixture(scope="session")
def metered(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metered]:
    tree = make_tree(tmp_path_factory.mktemp("device"), "orin-nx", METERED_WATTS)
    board = Board(tree.root)

    meter = ProcessorMeter()
    with play(tree, meter.watts, 0.05):
        daemon = launcher.start({"power": {"root": str(tree.root)}})
        meter.process = daemon.process.pid
        yield Metered(daemon, tree, board)
    assert daemon.process.poll() is None, f"the metered daemon died:\n{daemon.log()}"
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.log(), daemon.log()


def _data_folder() -> Path:
    given = os.environ.get("DELEN_TEST_DATA")
    return Path(given) if given else REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data, where there is one."""
    folder = _data_folder()
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; DELEN_TEST_DATA names their folder")
    return folder


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    """40 images ``[40, 32, 32, 3]``: of the CIFAR-10 test set, 4 a class, or blurred noise."""
    file = _data_folder() / "images" / "cifar10_32.zip"
    if file.is_file():
        from multiexit_models.data import cifar

        return cifar.load(file, "test").inputs[::250]
    noise = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
    enlarged = [Image.fromarray(tile).resize((32, 32), Image.Resampling.BICUBIC) for tile in noise]
    return np.stack([np.asarray(tile) for tile in enlarged])


@pytest.fixture(scope="session")
def image(images: NDArray[np.uint8], daemon: Daemon) -> NDArray[np.uint8]:
    """The image that the network is surest of, so that what JPEG loses does not matter."""

    def confidence(image: NDArray[np.uint8]) -> float:
        return float(daemon.api.raw(image).json()["predictions"][0]["probability"])

    return max(images, key=confidence)


def encode_image(image: NDArray[np.uint8], form: str, **options: Any) -> bytes:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, format=form, **options)
    return buffer.getvalue()


def encode_npy(array: NDArray[Any], **options: Any) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def png() -> Callable[[NDArray[np.uint8]], bytes]:
    return lambda image: encode_image(image, "PNG")


@pytest.fixture(scope="session")
def jpeg() -> Callable[[NDArray[np.uint8]], bytes]:
    return lambda image: encode_image(image, "JPEG", quality=95, subsampling=0)


@pytest.fixture(scope="session")
def npy() -> Callable[..., bytes]:
    return encode_npy


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Path]:
    return copy_bundle


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    return wait_until


@pytest.fixture(scope="session")
def metric() -> Callable[..., float]:
    """The sum of the samples of one metric that have the given labels."""
    from prometheus_client.parser import text_string_to_metric_families

    def total(api: Api, name: str, **labels: str) -> float:
        answer = api.get("/metrics")
        assert answer.status == 200
        return sum(
            sample.value
            for family in text_string_to_metric_families(answer.body.decode())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    return total


@pytest.fixture(scope="session")
def environment() -> Callable[..., dict[str, str]]:
    return clean_environment


GATE = """
import time
from pathlib import Path
from policies.exit.bounds import BoundsPolicy

class Gate(BoundsPolicy):
    def decide(self, view):
        while Path({file!r}).exists():
            time.sleep(0.005)
        return super().decide(view)

def make_gate(exits):
    return Gate()
"""


@dataclass(frozen=True)
class Gate:
    """A daemon with these ``policies`` ends no segment while the gate is closed."""

    file: Path
    policies: Mapping[str, str] = field(default_factory=lambda: {"exit": "gate"})

    def close(self) -> None:
        self.file.touch()

    def open(self) -> None:
        self.file.unlink(missing_ok=True)


@pytest.fixture
def gate(install: Callable[..., None], tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path / "closed")
    install("delen.exit_policies", GATE.format(file=str(gate.file)), gate="make_gate")
    yield gate
    gate.open()


@dataclass(frozen=True)
class Gated:
    """A daemon where much may wait, and its gate."""

    daemon: Daemon
    gate: Gate

    @property
    def api(self) -> Api:
        return self.daemon.api


@pytest.fixture(scope="session")
def gated_daemon(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    folder = tmp_path_factory.mktemp("gate")
    gate = Gate(folder / "closed")
    with pytest.MonkeyPatch.context() as patch:
        source = GATE.format(file=str(gate.file))
        _install(folder, patch, "delen.exit_policies", source, gate="make_gate")
        server = {"max_backlog_seconds": 1000.0}
        daemon = launcher.start({"server": server, "policies": gate.policies})
    yield Gated(daemon, gate)
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.log(), daemon.log()


@pytest.fixture
def gated(gated_daemon: Gated) -> Iterator[Gated]:
    """The daemon with a gate that tests share."""
    yield gated_daemon
    gated_daemon.gate.open()


@pytest.fixture
def overloaded(
    launcher: Launcher, gate: Gate, images: NDArray[np.uint8], metric: Any, until: Any
) -> Iterator[Daemon]:
    """A daemon where one request runs, and another one is all that may wait, at a closed gate."""
    server = {"max_backlog_seconds": 0.001}
    daemon = launcher.start({"server": server, "policies": gate.policies})
    gate.close()
    with ThreadPoolExecutor(2) as clients:
        clients.submit(daemon.api.raw, images[0])
        until(lambda: metric(daemon.api, "delen_lanes_busy") == 1, "one runs")
        clients.submit(daemon.api.raw, images[0])
        until(lambda: metric(daemon.api, "delen_jobs") == 2, "one waits")
        yield daemon
        gate.open()
    launcher.stop(daemon)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Installs a module with plug-ins for the daemons that a test starts: the entry point group,
    the source, and what is made by which name."""

    return partial(_install, tmp_path, monkeypatch)


def _install(folder: Path, patch: pytest.MonkeyPatch, group: str, source: str, **made: str) -> None:
    info = folder / "strange_policies-1.0.dist-info"
    info.mkdir()
    named = "Metadata-Version: 2.1\nName: strange-policies\nVersion: 1.0\n"
    (info / "METADATA").write_text(named)
    lines = [f"{name} = strange_policies:{maker}" for name, maker in made.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]) + "\n")
    (folder / "strange_policies.py").write_text(source)
    path = filter(None, [os.environ.get("PYTHONPATH"), str(folder)])
    patch.setenv("PYTHONPATH", os.pathsep.join(path))


@pytest.fixture
def link(daemon: Daemon) -> Iterator[ThrottledLink]:
    """A way to the daemon that can be slow or stand still."""
    parts = urlsplit(daemon.url)
    assert parts.hostname is not None
    assert parts.port is not None
    with ThrottledLink(parts.hostname, parts.port) as throttled:
        yield throttled
