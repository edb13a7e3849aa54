from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from delen.errors import TraceError
from delen.simulate.fleet.site_file import read_site

PROFILE = Path(__file__).resolve().parents[5] / "benchmarks" / "profiles" / "nano-resnet50.json"
GOOD = f"""
seconds = 10
[hub]
period_s = 0.5
down = [[3, 4]]
[[nodes]]
name = "board"
models = [{{ name = "resnet", sizes = [{{ profile = "{PROFILE}", payload_bytes = 2e4 }}] }}]
[[nodes]]
name = "server"
speed = 8
energy = 0.5
slow = [[1, 2, 3.0]]
models = [{{ name = "resnet", sizes = [{{ profile = "{PROFILE}", payload_bytes = 2e4 }}] }}]
[[places]]
name = "hall"
local = ["board"]
delays_ms = {{ server = 4 }}
trace = "wifi.csv"
[[clients]]
name = "camera"
count = 2
model = "resnet"
fps = 10
deadline_ms = 80
controller = "mpc"
place = "hall"
moves = [{{ at_s = 5, place = "hall" }}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "wifi.csv").write_text("time_s,mbps\n0,20\n5,10\n")
    return tmp_path / "site.toml"


def test_a_site_is_read_in_seconds_and_with_its_profiles(file: Path) -> None:
    file.write_text(GOOD)
    site = read_site(file)
    board, server = site.nodes
    slow, fast = board.models[0].points, server.models[0].points
    assert [point.exit for point in slow] == [0, 1, 2, 3]
    assert fast[3].latency == pytest.approx(slow[3].latency / 8)
    assert slow[0].energy is not None and fast[0].energy == pytest.approx(slow[0].energy / 2)
    assert board.models[0].typical[0][0] < slow[0].latency
    assert site.places["hall"].delays == {"server": 0.004}
    assert site.places["hall"].local == ("board",)
    assert site.places["hall"].uplink.bandwidth.end == 10
    assert [client.controller for client in site.clients] == ["mpc", "mpc"]
    assert [client.name for client in site.clients] == ["camera-0", "camera-1"]
    assert site.clients[0].deadline == pytest.approx(0.08)
    assert (site.hub.period, site.hub.down) == (0.5, ((3, 4),))


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("seconds = 10", "seconds = 0", "seconds"),
        ("seconds = 10", "second = 10", "second"),
        ("seconds = 10", "seconds = nan", "seconds"),
        ("speed = 8", "speed = -8", "nodes[1].speed"),
        ("speed = 8", 'speed = "fast"', "nodes[1].speed"),
        ("speed = 8", "sped = 8", "sped"),
        (
            "slow = [[1, 2, 3.0]]",
            "slow = [[1, 2]]",
            "slow[0] must be a list of 3 values, not [1, 2]",
        ),
        ("slow = [[1, 2, 3.0]]", "slow = [[1, 2, 0]]", "slow[0][2] must be a number, above 0"),
        ("slow = [[1, 2, 3.0]]", "down = [[2, 1]]", "nodes.server: down"),
        ("down = [[3, 4]]", "down = [[3, 5], [4, 6]]", "hub: down"),
        ('name = "server"', 'name = "board"', "'board' is given twice"),
        ('local = ["board"]', 'local = ["bord"]', "places.hall: local names 'bord'"),
        ("delays_ms = { server = 4 }", "delays_ms = { serve = 4 }", "places.hall: delays_ms"),
        (
            "delays_ms = { server = 4 }",
            "delays_ms = { server = -4 }",
            "places.hall: delays_ms.server must be a number, at least 0, at most 1e+09, not -4",
        ),
        ("delays_ms = { server = 4 }", 'delays_ms = { server = "x" }', "delays_ms.server must be"),
        ("delays_ms = { server = 4 }", "delays_ms = { board = 4 }", "in local and in delays_ms"),
        ('trace = "wifi.csv"', "", "one of trace and mbps"),
        ('trace = "wifi.csv"', 'trace = "wifi.csv"\nmbps = 3', "one of trace and mbps"),
        ('trace = "wifi.csv"', 'trace = "lte.csv"', "places.hall: trace"),
        ('trace = "wifi.csv"', 'trace = "wifi.csv"\nloss = 0.9', "places.hall: loss"),
        ('model = "resnet"\nfps', 'model = "vgg"\nfps', "clients.camera: model names 'vgg'"),
        ('place = "hall"\nmoves', 'place = "yard"\nmoves', "clients.camera: place names 'yard'"),
        (
            'controller = "mpc"',
            'controller = "best"',
            "clients.camera: controller: delen.client_controllers",
        ),
        ("count = 2", "count = 0", "clients[0].count"),
        ("count = 2", "from_s = 5\nuntil_s = 4", "clients.camera: until_s"),
        ("at_s = 5", "at_s = -5", "moves[0].at_s"),
        ("deadline_ms = 80", "", "deadline_ms"),
        ("nano-resnet50.json", "nano.json", "nodes.board.models.resnet: profile"),
        ('name = "resnet", ', 'name = "resnet", accuracies = [0.5], ', "nodes.board.models.resnet"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_key(file: Path, old: str, new: str, named: str) -> None:
    assert old in GOOD
    file.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(TraceError) as caught:
        read_site(file)
    assert str(file) in str(caught.value)
    assert named in str(caught.value)


def test_what_is_no_toml_or_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(TraceError, match=r"site\.toml"):
        read_site(file)
    file.write_text("seconds = ")
    with pytest.raises(TraceError, match=r"site\.toml.*TOML"):
        read_site(file)


def test_equal_files_are_equal_sites_in_every_process(file: Path) -> None:
    """A training goes on by what its sites look like, pickled."""
    both = GOOD.replace('local = ["board"]', 'local = ["server", "board"]')
    file.write_text(both.replace("delays_ms = { server = 4 }", "delays_ms = {}"))
    code = (
        "import hashlib, pickle, sys; from pathlib import Path; "
        "from delen.simulate.fleet.site_file import read_site; "
        "print(hashlib.sha256(pickle.dumps(read_site(Path(sys.argv[1])))).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code, str(file)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1
