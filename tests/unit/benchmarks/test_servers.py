"""The comparison's load, processes and claims, on a server of a few lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peers import PEERS
from benchmarks.peers.load import Request, ask, drive
from benchmarks.peers.process import Cores, Running, descendants, running
from benchmarks.peers.table import ALONE, FULL, Results, claims

SERVER = """
import subprocess, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        status, _, text = self.rfile.read(int(self.headers["Content-Length"])).partition(b" ")
        self.send_response(int(status))
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments):
        pass

sleep = "[sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True"
subprocess.run([sys.executable, "-c", f"import subprocess, sys; subprocess.Popen({sleep})"])
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
"""Answers with the status and the text that it is sent. A process that it starts has no parent."""


def wire(text: bytes) -> bytes:
    return Request("/", text).wire()


def start(script: str, folder: Path):
    command = [sys.executable, "-c", script, "{port}"]
    core = Cores.of_this_process().server
    return running(command, {}, folder, core, lambda to: ask(to, wire(b"200 yes")).body == b"yes")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with start(SERVER, tmp_path_factory.mktemp("server")) as server:
        yield server


def test_each_connection_sends_in_turn_until_the_end(server: Running) -> None:
    answers = drive(server.address, [wire(b"200 a"), wire(b"200 b")], 3, 0.2)
    assert {answer.body for answer in answers.answers} == {b"a", b"b"}
    assert all(answer.body == b"ab"[answer.number % 2 :][:1] for answer in answers.answers)
    assert answers.in_time == len(answers.answers) - 3
    assert 0.0 < answers.goodput(1.0) == answers.rate


def test_a_refused_client_comes_back_when_it_is_told_to(server: Running) -> None:
    answers = drive(server.address, [wire(b'503 {"retry_after_s": 0.15}')], 1, 0.2)
    assert [answer.status for answer in answers.answers] == [503, 503]
    assert answers.rate == 0.0


def test_any_other_status_ends_the_load(server: Running) -> None:
    with pytest.raises(RuntimeError, match="500: broken"):
        drive(server.address, [wire(b"500 broken")], 1, 0.2)


def test_all_processes_of_a_server_count_and_end_with_it(tmp_path: Path) -> None:
    before = descendants()
    with start(SERVER, tmp_path) as server:
        assert len(descendants() - before) == 2
        assert server.resident_mb() > 5.0
        assert server.processor_seconds() > 0.0
    assert descendants() <= before


def test_a_server_that_ends_at_once_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="no such model"),
        start("exit('no such model')", tmp_path),
    ):
        pass


def test_a_server_runs_on_its_core_alone(tmp_path: Path) -> None:
    cores = os.sched_getaffinity(0)
    with start(SERVER, tmp_path) as server:
        for process in descendants() - server.others:
            assert len(os.sched_getaffinity(process)) == 1
        assert os.sched_getaffinity(0) == cores


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_is_pinned_and_its_script_is_python(peer) -> None:
    assert all("==" in requirement for requirement in peer.requirements)
    compile(peer.script, "server.py", "exec")
    assert peer.request(bytes(3072)).wire().startswith(b"POST /")


def test_ratios_are_to_the_best_peer_of_the_same_round() -> None:
    results = Results()
    for factor in (1.0, 2.0):
        results.add(ALONE, {"mean": factor, "at 8": 100.0})
        results.add(FULL, {"added": factor, "at 8": 300.0 * factor})
        results.add("slow", {"added": 8.0 * factor, "at 8": 50.0})
        results.add("quick", {"added": 2.0 * factor, "at 8": 100.0 * factor})
    figures = {figure.name: figure for figure in claims(results, ["slow", "quick"])}
    added = figures["added p50, all exits, of the best peer's"]
    assert added.values == (0.5, 0.5) and added.holds
    assert figures["requests/s at 8, all exits, of the best peer's"].values == (3.0, 3.0)


def test_without_peers_only_what_stands_by_itself_is_claimed() -> None:
    results = Results()
    results.add(ALONE, {"at 8": 100.0})
    results.add(FULL, {"at 8": 90.0, "processor": 0.5})
    assert len(claims(results, [])) == 2


def test_the_table_leaves_out_what_was_not_measured() -> None:
    results = Results()
    results.add(FULL, {"p50": 2.5, "deepest": 100.0})
    assert results.table().splitlines()[-1].split() == ["delen,", "all", "exits", "2.5"]
