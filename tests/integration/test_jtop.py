"""jetson-stats' own server, over sensor trees, read by its own client."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from delen.core.device_status import DeviceStatus, UnitStatus
from delen.errors import (
    MissingExtra,
    PowerError,
    SensorAbsent,
    SensorDenied,
    SensorFailed,
)
from power.board.jtop import DeviceReporter
from power.sources.jtop import PIPE, Jtop
from power.sources.source import PowerReading
from tests.jtop_server import Server, wait_until
from tests.other_user import as_other_user, open_folder
from tests.sensors import SensorTree, make_tree, play

pytest.importorskip("jtop", reason="the real jtop server comes with delen[test]")
from power.sources import jtop_client

REPOSITORY = Path(__file__).resolve().parents[2]


@contextmanager
def opened(root: Path, *arguments: Any) -> Iterator[Jtop]:
    jtop = Jtop(root, *arguments)
    try:
        yield jtop
    finally:
        jtop.close()


@pytest.fixture
def serve() -> Iterator[Callable[[SensorTree], Server]]:
    """Starts a server over a tree."""
    with ExitStack() as stack:

        def start(tree: SensorTree) -> Server:
            server = Server(tree.root)
            stack.callback(server.kill)
            return server

        yield start


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a short name, as sockets need."""
    return tmp_path_factory.mktemp("jt") / "root"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server on a busy machine is not taken for dead, unless a test says that it is."""
    monkeypatch.setattr("power.sources.jtop._LEAST_SILENCE", 5.0)


def read_again(jtop: Jtop) -> PowerReading:
    """The next reading, from a server that may have to be connected to anew."""

    def read() -> PowerReading | None:
        try:
            return jtop.read()
        except SensorFailed:
            return None

    reading: PowerReading = wait_until(read, "a reading")
    return reading


@pytest.mark.parametrize("family", ["orin-nx", "agx-orin", "agx-xavier", "nano", "thor"])
def test_every_familys_total_is_read(
    family: str, root: Path, serve: Callable[[SensorTree], Server]
) -> None:
    tree = make_tree(root, family)
    serve(tree)
    with opened(root) as jtop:
        reading = jtop.read()
        assert reading.total == pytest.approx(tree.total)
        assert reading.rails == pytest.approx(tree.watts)
        assert jtop.scope == ("carrier_input" if family == "thor" else "module_input")


def test_load_and_clock_of_the_gpu_come_with_the_readings(
    root: Path, serve: Callable[[SensorTree], Server]
) -> None:
    tree = make_tree(root, "orin-nx")
    folder = root / "sys/class/devfreq/17000000.gpu"
    (folder / "device/of_node").mkdir(parents=True)
    (folder / "device/of_node/name").write_text("gpu\0")
    (folder / "device/load").write_text("423\n")
    (folder / "cur_freq").write_text("612000000\n")
    serve(tree)
    with opened(root) as jtop:
        assert isinstance(jtop, DeviceReporter)
        jtop.read()
        device = jtop.device()
        assert device.gpu == UnitStatus(pytest.approx(0.423), 612e6)
    assert jtop.device() == DeviceStatus()


def test_readings_follow_the_sensor_and_are_never_given_twice(
    root: Path, serve: Callable[[SensorTree], Server]
) -> None:
    tree = make_tree(root, "orin-nx")
    serve(tree)
    with opened(root) as jtop:
        times = [jtop.read().time for _ in range(4)]
        assert times == sorted(set(times))
        with play(tree, lambda elapsed: tree.spread(12.0)):
            wait_until(lambda: jtop.read().total == pytest.approx(12.0), "12 W")


def test_a_rail_of_the_total_that_is_gone_is_no_smaller_total(
    root: Path, serve: Callable[[SensorTree], Server]
) -> None:
    tree = make_tree(root, "orin-nx")
    serve(tree)
    with opened(root) as jtop:
        jtop.read()
        tree.fail(tree.path("VDD_IN", "current"))
        with pytest.raises(SensorFailed, match="VDD_IN"):
            for _ in range(3):
                jtop.read()
        tree.heal()
        assert read_again(jtop).total == pytest.approx(tree.total)


def test_a_server_that_stops_reading_is_noticed_and_a_new_one_taken(
    root: Path, serve: Callable[[SensorTree], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_tree(root, "agx-xavier")
    server = serve(tree)
    with opened(root) as jtop:
        jtop.read()
        monkeypatch.setattr("power.sources.jtop._LEAST_SILENCE", 0.5)
        tree.spoil(tree.path("CPU", "current"), "rubbish\n")
        with pytest.raises(SensorFailed, match="nothing new"):
            for _ in range(3):
                jtop.read()
        tree.heal()
        server.restart()
        assert read_again(jtop).total == pytest.approx(tree.total)


def test_a_server_that_dies_fails_and_one_that_restarts_is_read_again(
    root: Path, serve: Callable[[SensorTree], Server]
) -> None:
    tree = make_tree(root, "nano")
    server = serve(tree)
    with opened(root) as jtop:
        jtop.read()
        server.kill()
        for _ in range(2):
            with pytest.raises(SensorFailed) as failure:
                jtop.read()
            assert failure.value.remedy
        server.restart()
        assert read_again(jtop).total == pytest.approx(tree.total)


def test_a_slower_client_that_joins_changes_nothing(
    root: Path, serve: Callable[[SensorTree], Server]
) -> None:
    tree = make_tree(root, "orin-nx")
    serve(tree)
    with opened(root, (), 0.1) as jtop:
        jtop.read()
        slower = jtop_client.connect(root / PIPE, 1.0)
        try:
            assert slower.interval == jtop.interval == 0.1
            assert [jtop.read().total for _ in range(5)] == pytest.approx([tree.total] * 5)
            slower.next(timeout=2.0)
        finally:
            slower.close()


def test_a_slower_client_that_came_first_sets_the_pace(
    root: Path, serve: Callable[[SensorTree], Server]
) -> None:
    tree = make_tree(root, "orin-nx")
    serve(tree)
    first = jtop_client.connect(root / PIPE, 0.4)
    try:
        with opened(root, (), 0.1) as jtop:
            assert jtop.interval == 0.4
            assert [jtop.read().total for _ in range(3)] == pytest.approx([tree.total] * 3)
    finally:
        first.close()


def test_an_unknown_board_asks_for_its_total(
    root: Path, serve: Callable[[SensorTree], Server]
) -> None:
    tree = make_tree(root, "unknown")
    serve(tree)
    with pytest.raises(PowerError, match="AUX, MAIN_IN") as failure:
        Jtop(root)
    assert "power.total_rails" in str(failure.value.remedy)
    with opened(root, ["MAIN_IN"]) as jtop:
        assert jtop.read().total == pytest.approx(tree.watts["MAIN_IN"])


def test_without_a_server_there_is_no_jtop(root: Path) -> None:
    with pytest.raises(SensorAbsent, match=r"jtop\.sock"):
        Jtop(root)
    (root / "run").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(root / PIPE))
    with pytest.raises(SensorAbsent, match="no jtop server answers"):
        Jtop(root)


@pytest.mark.parametrize("part", [0, 1], ids=["manager", "reader"])
def test_a_server_that_freezes_fails_until_it_goes_on(
    part: int,
    root: Path,
    serve: Callable[[SensorTree], Server],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tree = make_tree(root, "orin-nx")
    server = serve(tree)
    with opened(root) as jtop:
        jtop.read()
        monkeypatch.setattr("power.sources.jtop._LEAST_SILENCE", 0.5)
        monkeypatch.setattr("power.sources.jtop._OPENING", 1.0)
        monkeypatch.setattr("power.sources.jtop_client._PATIENCE", 0.3)
        server.signal_part(part, signal.SIGSTOP)
        with pytest.raises(SensorFailed, match="nothing new"):
            for _ in range(3):
                jtop.read()
        with pytest.raises(SensorFailed, match="does not answer"):
            jtop.read()
        server.signal_part(part, signal.SIGCONT)
        assert read_again(jtop).total == pytest.approx(tree.total)


def test_a_socket_of_others_says_which_group_to_join() -> None:
    with open_folder() as root, socket.socket(socket.AF_UNIX) as server:
        (root / "run").mkdir()
        server.bind(str(root / PIPE))
        server.listen()
        (root / PIPE).chmod(0)
        with as_other_user(), pytest.raises(SensorDenied) as failure:
            Jtop(root)
    assert "usermod -aG jtop" in str(failure.value.remedy)


def test_a_server_that_hangs_is_not_waited_for_for_ever(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("power.sources.jtop._OPENING", 0.2)
    (root / "run").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / PIPE))
        server.listen()
        with pytest.raises(SensorFailed, match="does not answer"):
            Jtop(root)


def test_without_jetson_stats_the_extra_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "run").mkdir(parents=True)
    (root / PIPE).touch()
    monkeypatch.setitem(sys.modules, "jtop", None)
    monkeypatch.delitem(sys.modules, "power.sources.jtop_client")
    monkeypatch.delattr("power.sources.jtop_client")
    with pytest.raises(MissingExtra, match=r"delen\[jetson\]"):
        Jtop(root)


def test_its_import_is_lazy_and_leaves_multiprocessing_alone() -> None:
    code = (
        "import multiprocessing, sys\n"
        "multiprocessing.set_start_method('spawn')\n"
        "import power.sources.probe\n"
        "assert not {'jtop', 'pynvml'} & set(sys.modules), 'imported early'\n"
        "import power.sources.jtop_client\n"
        "assert multiprocessing.get_start_method() == 'spawn'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
