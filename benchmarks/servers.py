"""``python -m benchmarks servers``: the shipped network behind delen and behind other servers.

The network's segments are joined into one graph that ends in its last exit, and put behind
LitServe, BentoML, MLServer, KServe and Ray Serve. Each is installed into an environment of its own,
which is kept, and set for speed, with one worker and one thread; MLServer and Ray Serve with
batching and without, because neither is better in all columns. A server runs on one core, the load
on another. In each round every server is started anew, loaded over one connection, 8 and 64, and
ended, so that none runs beside another. Images are real where the data are at hand.

"processor" is processor time of all of a server's processes for a request over one connection,
beyond what the network takes alone; their work in the background counts. "in bound" counts answers
within 100 ms over 64 connections. delen knows that bound, and its clients come back when a refusal
says; others are not told. Memory is of all processes; what they share counts once (PSS).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import onnx

from benchmarks.chain import plain_classifier
from benchmarks.common import Figure, data_folder, report
from benchmarks.peers import PEERS
from benchmarks.peers.comparison import BUNDLE, Comparison
from benchmarks.peers.peer import Installed, install
from benchmarks.peers.process import Cores, on_core
from benchmarks.peers.table import claims
from delen.bundle.manifest import load_bundle

MOST_SECONDS = 14 * 60.0
"""No round begins that would end later. Installing is not counted."""


@dataclass(frozen=True)
class Options:
    """``only`` names peers; empty means all. Environments are kept in ``workdir``."""

    workdir: Path
    rounds: int = 5
    seconds: float = 2.0
    only: tuple[str, ...] = ()


def default_workdir() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "delen" / "servers"


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def install_all(options: Options) -> list[Installed]:
    """The peers that could be installed; a line for each of how it is set, or why it is absent."""
    beside = [f"onnxruntime=={version('onnxruntime')}"]
    installed = []
    for peer in PEERS:
        if options.only and peer.name not in options.only:
            continue
        about = peer.setting
        _progress(f"installing {peer.name}")
        try:
            installed.append(install(peer, options.workdir, beside))
        except RuntimeError as error:
            about = f"not installed: {error}"
        print(f"{peer.name} ({', '.join(peer.requirements)}): {about}")
    print(f"beside each {beside[0]}")
    return installed


def play_rounds(comparison: Comparison, peers: Sequence[Installed], rounds: int) -> list[str]:
    """Measures round after round, beginning with another server each time; the names of the peers
    that came through all of them."""
    began, remaining, played = time.monotonic(), list(peers), 0
    while played < rounds:
        if played and (time.monotonic() - began) * (played + 1) / played > MOST_SECONDS:
            print(f"only {played} of {rounds} rounds: more would take too long")
            break
        _progress(f"round {played + 1} of {rounds}: the network alone, delen")
        comparison.measure_alone()
        comparison.measure_delen()
        turn = played % max(1, len(remaining))
        for installed in [*remaining[turn:], *remaining[:turn]]:
            name = installed.peer.name
            _progress(f"round {played + 1} of {rounds}: {name}")
            try:
                comparison.measure_peer(installed)
            except Exception as error:
                print(f"{name}: not compared: {error or type(error).__name__}")
                comparison.results.drop(name)
                remaining.remove(installed)
        played += 1
    return [installed.peer.name for installed in remaining]


def compare(options: Options) -> list[Figure]:
    print()
    options.workdir.mkdir(parents=True, exist_ok=True)
    installed = install_all(options)
    cores = Cores.of_this_process()
    if cores.server == cores.load:
        print("only one core: the load runs beside the servers")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(plain_classifier(load_bundle(BUNDLE)), folder / "network.onnx")
        comparison = Comparison(folder / "network.onnx", folder, options.seconds)
        if comparison.images.labels is None:
            print(f"no CIFAR-10 under {data_folder()}: early exits are not measured")
        with on_core(cores.load):
            comparison.prepare()
            names = play_rounds(comparison, installed, options.rounds)
    print(f"\n{comparison.results.table()}")
    title = "The shipped network behind delen and other servers, one core"
    return report(title, claims(comparison.results, names))


def main() -> list[Figure]:
    return compare(Options(default_workdir()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workdir", type=Path, default=default_workdir())
    parser.add_argument("--rounds", type=int, default=Options.rounds)
    parser.add_argument("--seconds", type=float, default=Options.seconds, help="of each load")
    parser.add_argument("--only", nargs="*", default=(), metavar="PEER")
    given = parser.parse_args()
    compare(Options(given.workdir, given.rounds, given.seconds, tuple(given.only)))
