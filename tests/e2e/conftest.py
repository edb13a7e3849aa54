"""Real daemons, each a process of its own, and real inputs for them."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.sensors import SensorTree, make_tree

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED_BUNDLE = REPOSITORY / "multiexit_models" / "bundles" / "cifar10-resnet"
DEADLINE = 120.0
METERED_WATTS = {"VDD_IN": 7.5, "VDD_CPU_GPU_CV": 2.0, "VDD_SOC": 1.5}
_URL = re.compile(r"(?:http|unix)://[^\s\"]+")

Config = Mapping[str, Mapping[str, Any]]


def wait_until(holds: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """Ask again and again until ``holds`` gives something true, which is returned."""
    end = time.monotonic() + deadline
    while not (found := holds()):
        if time.monotonic() > end:
            raise AssertionError(f"after {deadline:g} s there is still not: {what}")
        time.sleep(0.02)
    return found


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def error(self, status: int, code: str) -> dict[str, Any]:
        """The error document, checked to be one of this status and code."""
        assert self.headers.get_content_type() == "application/json", self.body
        document: dict[str, Any] = self.json()
        assert (self.status, document["code"]) == (status, code), document
        assert document["error"].strip(), "the error says nothing"
        return document


class Api:
    """Requests to one daemon, each on a connection of its own."""

    def __init__(self, url: str) -> None:
        self.url = url

    def connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            return _UnixConnection(parts.path)
        assert parts.hostname is not None
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=DEADLINE)

    def socket(self) -> socket.socket:
        """A bare TCP connection, for what an HTTP library would not send."""
        parts = urlsplit(self.url)
        return socket.create_connection((parts.hostname, parts.port), timeout=DEADLINE)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | list[tuple[str, Any]] | None = None,
    ) -> Answer:
        sent = dict(headers or {})
        if content_type is not None:
            sent["Content-Type"] = content_type
        target = f"{path}?{urlencode(query)}" if query else path
        connection = self.connect()
        try:
            connection.request(method, target, body, sent)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, **arguments: Any) -> Answer:
        return self.request("GET", path, **arguments)

    def post(self, path: str, **arguments: Any) -> Answer:
        return self.request("POST", path, **arguments)

    def raw(self, image: NDArray[np.uint8], path: str = "/v1/infer", **query: Any) -> Answer:
        """Infer one image as raw bytes, bounds and options in the query string."""
        return self.post(
            path, body=image.tobytes(), content_type="application/octet-stream", query=query
        )

    def as_json(self, document: Any, path: str = "/v1/infer") -> Answer:
        return self.post(path, body=json.dumps(document).encode(), content_type="application/json")

    def plan(self, **bounds: Any) -> dict[str, Any]:
        answer = self.post("/v1/plan", query=bounds)
        assert answer.status == 200, answer.body
        document: dict[str, Any] = answer.json()
        return document

    def deepest_useful(self) -> int:
        """The last exit that no earlier one matches in accuracy."""
        pareto = self.plan()["pareto"]
        return int(max(point["exit"] for point in pareto if not point["dominated"]))


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=DEADLINE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass
class Daemon:
    """A running daemon: its addresses, its log, its configuration file."""

    process: subprocess.Popen[bytes]
    config_file: Path
    log_file: Path
    config: dict[str, dict[str, Any]]
    url: str = ""
    unix_url: str | None = None
    api: Api = field(init=False)

    def log(self) -> str:
        return self.log_file.read_text()

    def wait_for_log(self, text: str, times: int = 1) -> str:
        """The log once ``text`` has appeared in it ``times`` times."""

        def found() -> str:
            log = self.log()
            if log.count(text) < times and self.process.poll() is not None:
                raise AssertionError(f"the daemon ended without {text!r} in its log:\n{log}")
            return log if log.count(text) >= times else ""

        return str(wait_until(found, f"{text!r} in the log", DEADLINE))

    def configure(self, changes: Config) -> None:
        """Change the configuration file; SIGHUP makes the daemon read it."""
        for section, values in changes.items():
            self.config.setdefault(section, {}).update(values)
        self.config_file.write_text(to_toml(self.config))

    def reload(self) -> str:
        """Send SIGHUP and return what the daemon logged about it."""
        before = len(self.log())
        self.process.send_signal(signal.SIGHUP)
        wait_until(
            lambda: re.search(r"SIGHUP: (re|nothing re)loaded", self.log()[before:]),
            "the end of the reload in the log",
        )
        return self.log()[before:]

    def terminate(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)


def to_toml(config: Config) -> str:
    return "\n".join(
        f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        for section, keys in config.items()
    )


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without the variables that delen reads."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DELEN_")}
    return {**kept, **more}


class Launcher:
    """Starts daemons that share one state folder, and ends them all at last."""

    def __init__(self, folder: Path, state: Path) -> None:
        self._folder = folder
        self._state = state
        self._count = 0
        self._started: list[Daemon] = []

    def _prepare(self, config: Config) -> tuple[Path, dict[str, dict[str, Any]]]:
        self._count += 1
        folder = self._folder / f"daemon{self._count}"
        folder.mkdir()
        whole: dict[str, dict[str, Any]] = {
            "server": {"port": 0, "socket": str(folder / "d.sock")},
            "state": {"path": str(self._state)},
        }
        for section, values in config.items():
            whole.setdefault(section, {}).update(values)
        file = folder / "delen.toml"
        file.write_text(to_toml(whole))
        return file, whole

    @staticmethod
    def command(config_file: Path) -> list[str]:
        return [str(Path(sys.executable).parent / "delen-daemon"), "--config", str(config_file)]

    def start(self, config: Config | None = None) -> Daemon:
        """A daemon that is ready; its addresses are those that its log names."""
        file, whole = self._prepare(config or {})
        log_file = file.with_name("log")
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                self.command(file), stderr=log, env=clean_environment(), cwd=file.parent
            )
        daemon = Daemon(process, file, log_file, whole)
        self._started.append(daemon)
        line = next(
            line for line in daemon.wait_for_log("ready on").splitlines() if "ready on" in line
        )
        urls = _URL.findall(line)
        daemon.url = next(url for url in urls if url.startswith("http://"))
        daemon.unix_url = next((url for url in urls if url.startswith("unix://")), None)
        daemon.api = Api(daemon.url)
        return daemon

    def refused(self, config: Config) -> subprocess.CompletedProcess[str]:
        """Run a daemon that does not start, to its end."""
        file, _ = self._prepare(config)
        return subprocess.run(
            self.command(file),
            env=clean_environment(),
            cwd=file.parent,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )

    def stop(self, daemon: Daemon) -> None:
        if daemon.process.poll() is None:
            daemon.process.terminate()
            try:
                daemon.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                daemon.process.kill()
                daemon.process.wait()

    def stop_all(self) -> None:
        for daemon in self._started:
            if daemon.process.poll() is None:
                daemon.process.terminate()
        for daemon in self._started:
            self.stop(daemon)


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One state folder for all, so that this device is profiled once."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="session")
def own_state(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes state folders that share no more than the profiles."""
    profiles = state / "profiles"
    profiles.mkdir(exist_ok=True)

    def make() -> Path:
        folder = tmp_path_factory.mktemp("state")
        (folder / "profiles").symlink_to(profiles)
        return folder

    return make


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
    """The daemon that most tests share: bodies up to 1 MB, and the second model, not loaded."""
    daemon = launcher.start({"server": {"max_body_mb": 1.0}, "models": {"path": str(bundles)}})
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

    @property
    def api(self) -> Api:
        return self.daemon.api


@pytest.fixture(scope="session")
def metered(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metered]:
    tree = make_tree(tmp_path_factory.mktemp("device"), "orin-nx", METERED_WATTS)
    daemon = launcher.start({"power": {"root": str(tree.root)}})
    yield Metered(daemon, tree)
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


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Installs a module with plug-ins for the daemons that a test starts: the entry point group,
    the source, and what is made by which name."""

    def install(group: str, source: str, **made: str) -> None:
        info = tmp_path / "strange_policies-1.0.dist-info"
        info.mkdir()
        named = "Metadata-Version: 2.1\nName: strange-policies\nVersion: 1.0\n"
        (info / "METADATA").write_text(named)
        lines = [f"{name} = strange_policies:{maker}" for name, maker in made.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]) + "\n")
        (tmp_path / "strange_policies.py").write_text(source)
        path = filter(None, [os.environ.get("PYTHONPATH"), str(tmp_path)])
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))

    return install
