"""The Python blocks of docs/sdk.md and docs/streams.md run; docs/rest.md names every metric of a
daemon, and the dashboard names no other."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.builders.daemon import DEADLINE, Daemon, Launcher

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCKS = [
    block
    for page in ("sdk.md", "streams.md")
    for block in re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.M | re.S)
]


@pytest.fixture(scope="module")
def daemon(launcher: Launcher, own_state: Callable[[], Path]) -> Iterator[Daemon]:
    """A daemon whose settings the blocks may change."""
    state = {"path": str(own_state())}
    power = {"trust_model": True}  # this machine may have no sensor
    daemon = launcher.start({"state": state, "models": {"memory_mb": 1000}, "power": power})
    yield daemon
    launcher.stop(daemon)


def write_video(file: Path, frames: NDArray[np.uint8]) -> None:
    av = pytest.importorskip("av", reason="videos are read with av: delen[video]")
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = frames.shape[1:3]
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def test_the_pages_have_blocks() -> None:
    assert len(BLOCKS) >= 10


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_runs(
    block: str,
    daemon: Daemon,
    state: Path,
    images: NDArray[np.uint8],
    png: Callable[[NDArray[np.uint8]], bytes],
    environment: Callable[..., dict[str, str]],
    tmp_path: Path,
) -> None:
    (tmp_path / "photo.png").write_bytes(png(images[0]))
    if "street.mp4" in block:
        write_video(tmp_path / "street.mp4", images[:3])
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "delen").symlink_to(state)
    finished = subprocess.run(
        [sys.executable, "-c", block],
        cwd=tmp_path,
        env=environment(DELEN_URL=daemon.url, XDG_STATE_HOME=str(tmp_path / "home")),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout


@pytest.fixture
def names(daemon: Daemon, images: NDArray[np.uint8]) -> list[str]:
    """The metrics of a daemon."""
    assert daemon.api.raw(images[0]).status == 200
    text = daemon.api.get("/metrics").body.decode()
    return re.findall(r"^# TYPE (delen_\w+)", text, re.M)


def test_every_metric_of_a_daemon_is_named(names: list[str]) -> None:
    page = (DOCS / "rest.md").read_text()
    assert len(names) > 30
    assert {name for name in names if f"`{name}`" not in page} == set()


def test_every_metric_of_the_dashboard_exists(names: list[str]) -> None:
    dashboard = json.loads((DOCS / "grafana.json").read_text())
    targets = [target for panel in dashboard["panels"] for target in panel.get("targets", ())]
    used = {name for each in targets for name in re.findall(r"delen_\w+", each["expr"])}
    used |= set(re.findall(r"delen_\w+", json.dumps(dashboard["templating"])))
    assert len(used) > 20
    assert {name for name in used if re.sub("_(bucket|sum|count)$", "", name) not in names} == set()
