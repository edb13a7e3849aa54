"""How a daemon starts: signals from the first moment, bad bundles, what cannot be served, and what
another daemon left or holds."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.builders.daemon import DEADLINE, clean_environment, to_toml

if TYPE_CHECKING:
    from tests.builders.daemon import Daemon, Launcher

TINY_IMAGE = np.zeros((4, 4, 1), np.uint8)

SLOW_START = """
import sys, time
from importlib.abc import MetaPathFinder

class Slow(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            print("slow", file=sys.stderr, flush=True)
            time.sleep(3600)

sys.meta_path.insert(0, Slow())
"""


@pytest.fixture
def slow_start(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """The environment of a daemon that never gets beyond the import of a module."""

    def make(module: str) -> dict[str, str]:
        (tmp_path / "sitecustomize.py").write_text(SLOW_START.format(module=module))
        path = filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])
        return clean_environment(PYTHONPATH=os.pathsep.join(path))

    return make


@pytest.mark.parametrize("module", ["delen.daemon.config", "onnxruntime"])
def test_signals_are_served_from_the_first_moment(
    launcher: Launcher, tmp_path: Path, slow_start: Callable[[str], dict[str, str]], module: str
) -> None:
    """SIGHUP ends nothing; SIGTERM ends what opens, or is too early to be served by it."""
    file = tmp_path / "delen.toml"
    file.write_text(to_toml({"server": {"port": 0}, "state": {"path": str(tmp_path / "s")}}))
    with subprocess.Popen(
        launcher.command(file), stderr=subprocess.PIPE, env=slow_start(module), text=True
    ) as process:
        assert process.stderr is not None
        assert any(line == "slow\n" for line in process.stderr)
        process.send_signal(signal.SIGHUP)
        if module == "onnxruntime":
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 0
            return
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.kill()


@pytest.fixture
def measuring(tiny_bundle: Path, tmp_path: Path) -> dict[str, Any]:
    """The configuration of a daemon that measures a profile before it is ready: it has a cap on
    memory."""
    models = {"path": str(tiny_bundle.parent), "default": "tiny", "load": ["tiny"]}
    state = {"path": str(tmp_path / "state")}
    return {"models": {**models, "memory_mb": 1000.0}, "state": state}


def test_sigterm_ends_a_first_profile_at_once(
    launcher: Launcher, measuring: dict[str, Any]
) -> None:
    daemon = launcher.launch(measuring)
    daemon.wait_for_log("measuring a quick one")
    assert daemon.terminate() == 0
    assert "ready on" not in daemon.log()
    assert "Traceback" not in daemon.log()


def test_a_damaged_bundle_that_is_to_be_loaded_is_left_out(
    launcher: Launcher, write_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "bundles"
    folder.mkdir()
    write_bundle(folder / "sound", name="sound")
    rotten = write_bundle(folder / "rotten", name="rotten") / "segment1.onnx"
    rotten.write_bytes(rotten.read_bytes()[:-1])
    (write_bundle(folder / "torn", name="torn") / "manifest.json").write_text('{"format": ')
    load = ["rotten", "torn", "sound"]
    models = {"path": str(folder), "load": load, "default": "sound"}
    daemon = launcher.start({"models": models})
    assert daemon.api.raw(TINY_IMAGE).status == 200
    assert daemon.api.get("/readyz").status == 200
    left_out = [line for line in daemon.log().splitlines() if "models.load" in line]
    assert ["rotten" in left_out[0], "torn" in left_out[1], len(left_out)] == [True, True, 2]
    assert "segment1.onnx" in daemon.api.get("/v1/models/rotten").json()["problem"]
    launcher.stop(daemon)


def _one_sentence(ended: subprocess.CompletedProcess[str], named: str) -> None:
    assert ended.returncode == 2, ended.stderr
    said = [line for line in ended.stderr.splitlines() if line.startswith("delen-daemon: ")]
    assert len(said) == 1, ended.stderr
    assert named in said[0]
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("server", {"host": ""}),
        ("server", {"host": "no-such-host.invalid"}),
        ("server", {"socket": "/proc/none.sock"}),
        ("models", {"load": ["none"]}),
        ("device", {"backend": "tensorrt"}),
        ("power", {"source": "ina3221"}),
        ("energy", {"controller": "none"}),
        ("policies", {"dispatch": "none"}),
        ("state", {"path": ""}),
        ("log", {"level": "none"}),
    ],
)
def test_what_cannot_be_served_is_one_sentence(
    launcher: Launcher, section: str, values: dict[str, Any]
) -> None:
    ((key, value),) = values.items()
    named = f"{section}.{key}" if value == "" else str(value).strip("[]'")
    _one_sentence(launcher.refused({section: values}), named)


def test_too_few_files_are_one_sentence(launcher: Launcher, tmp_path: Path) -> None:
    file = tmp_path / "delen.toml"
    file.write_text(to_toml({"state": {"path": str(tmp_path / "state")}}))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))

    ended = subprocess.run(
        launcher.command(file),
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        preexec_fn=limit,
    )
    _one_sentence(ended, "server.connections")


def test_two_daemons_on_one_state_folder_are_refused(launcher: Launcher, daemon: Daemon) -> None:
    state = daemon.config["state"]["path"]
    _one_sentence(launcher.refused({"state": {"path": state}}), state)
    assert daemon.api.get("/healthz").status == 200


def test_what_was_never_finished_is_removed(launcher: Launcher, tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "profiles").mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    stale = [
        state / f"tenants.{gone.pid}.tmp",
        state / f".tenants.json.unfinished-{gone.pid}-1",
        state / "profiles" / f".x.json.unfinished-{gone.pid}-7",
    ]
    live = [state / f".energy.json.unfinished-{os.getpid()}-1", state / "notes.tmp"]
    for file in (*stale, *live):
        file.touch()
    daemon = launcher.start({"state": {"path": str(state)}, "models": {"load": []}})
    assert [file.name for file in stale if file.exists()] == []
    assert [file.exists() for file in live] == [True, True]
    launcher.stop(daemon)


def test_sighup_reads_what_changed_while_the_daemon_started(
    launcher: Launcher, measuring: dict[str, Any]
) -> None:
    daemon = launcher.launch(measuring)
    daemon.wait_for_log("measuring a quick one")
    daemon.configure({"log": {"level": "debug"}})
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for_log('log.level is now "debug"')
    assert daemon.terminate() == 0
