"""A site on one machine: three daemons, a hub and eight clients, each behind a link of ``tc``.

``python -m benchmarks.fleet.namespaces [--seconds N] [--trace FILE] [--delay S] [--loss SHARE]``
plays it for an hour by default: a daemon gets SIGKILL every minute, and the hub twice. Each client
has an uplink whose rate follows the trace, every one another stretch of it. The links of the
daemons carry 1 Gbit/s. Delay and loss need netem. It is no part of ``python -m benchmarks``.

With ``--inside`` it is the process in namespaces of its own that plays the site which it reads from
standard input, and writes what became of it, both as JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import data_folder
from benchmarks.fleet.crowd import ClientLog, Crowd
from benchmarks.fleet.daemons import NODES, figures
from benchmarks.fleet.kills import Kill, plan_kills, play_kills
from benchmarks.fleet.members import Address, make_daemon, make_hub, wait_ready, wait_up
from benchmarks.namespace_link import ENTER, NamespaceLink, namespace_problem
from delen.simulate.streams.bandwidth import Bandwidth, read_bandwidth

CLIENTS = 8
FPS = 5.0
DEADLINE = 0.5
HOUR = 3600.0
EVERY = 60.0
TRACE = "jellyfish_lte_upload_trace.txt"
_MODULE, _INSIDE = "benchmarks.fleet.namespaces", "--inside"
_PORT = 8000
_HUB_PORT = 8010
_FIRST_CLIENT = 101
"""Number of the first client's link; those of the nodes begin with 1."""
_STEP = 1.0
"""Seconds after which the rates follow the trace."""


@dataclass(frozen=True, slots=True)
class Played:
    """A site to play. The clients' uplinks begin the ``trace`` ``apart`` seconds one after the
    other; their rates are ``scale`` times its. Answers are due ``deadline`` seconds after a call.
    """

    seconds: float
    state: str
    trace: str
    scale: float = 1.0
    apart: float = 0.0
    delay: float = 0.0
    loss: float = 0.0
    deadline: float = DEADLINE
    kills: tuple[Kill, ...] = ()


def run_in_namespaces(site: Played) -> list[ClientLog]:
    """What each client got. RuntimeError with what the process wrote if it failed."""
    done = subprocess.run(
        [*ENTER, sys.executable, "-m", _MODULE, _INSIDE],
        input=json.dumps(asdict(site)),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [_log(each) for each in json.loads(done.stdout.splitlines()[-1])]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=HOUR)
    parser.add_argument("--trace", type=Path, default=data_folder() / "traces" / TRACE)
    parser.add_argument("--scale", type=float, default=1.0, help="of the trace's rates")
    parser.add_argument("--delay", type=float, default=0.0, metavar="S", help="each way")
    parser.add_argument("--loss", type=float, default=0.0, metavar="SHARE")
    options = parser.parse_args()
    if (problem := namespace_problem(options.delay, options.loss)) is not None:
        parser.error(problem)
    with tempfile.TemporaryDirectory() as state:
        site = Played(
            options.seconds,
            state,
            str(options.trace),
            options.scale,
            apart=options.seconds / CLIENTS,
            delay=options.delay,
            loss=options.loss,
            kills=tuple(plan_kills(NODES, options.seconds, EVERY)),
        )
        logs = run_in_namespaces(site)
    found = figures(logs, f"{CLIENTS} clients behind links of tc, over {options.seconds:g} s")
    return 1 if any(figure.holds is False for figure in found) else 0


def _inside(site: Played) -> list[ClientLog]:
    """``site`` in a process of ``ENTER``."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        links = [stack.enter_context(NamespaceLink(number=n + 1)) for n in range(len(NODES))]
        nodes = [
            make_daemon(name, Address(link.far, _PORT), Path(site.state), folder, link.there)
            for name, link in zip(NODES, links, strict=True)
        ]
        hub = make_hub(Address(links[0].near, _HUB_PORT), nodes, folder)
        uplinks = [
            stack.enter_context(NamespaceLink(site.delay, site.loss, number=number, is_back=True))
            for number in range(_FIRST_CLIENT, _FIRST_CLIENT + CLIENTS)
        ]
        members = {member.name: member for member in (*nodes, hub)}
        for member in members.values():
            stack.callback(member.stop)
        hub.start()
        nodes[0].start()
        wait_ready(nodes[0])  # it measures the profile that all have
        for node in nodes[1:]:
            node.start()
        wait_up(hub, nodes)
        enters = [link.enter for link in uplinks]
        crowd = Crowd(hub.address, enters, fps=FPS, deadline=site.deadline)
        crowd.begin()
        stack.callback(crowd.end)
        with _following(site, uplinks):
            play_kills(members, site.kills, site.seconds)
        crowd.end()
    return crowd.logs


@contextmanager
def _following(site: Played, links: Sequence[NamespaceLink]) -> Iterator[None]:
    """Let the rates of ``links`` follow the site's trace."""
    trace, ends, began = read_bandwidth(site.trace), threading.Event(), time.monotonic()

    def follow() -> None:
        before: dict[NamespaceLink, float] = {}
        while True:
            now = time.monotonic() - began
            for number, link in enumerate(links):
                rate = 8 * site.scale * _rate(trace, now + number * site.apart)
                if before.get(link) != rate:
                    before[link] = rate
                    link.set_rate(rate)
            if ends.wait(_STEP - now % _STEP):
                return

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def _rate(trace: Bandwidth, seconds: float) -> float:
    """Of a trace that begins again where it ends."""
    return float(trace.at(np.array([seconds % trace.end]))[0])


def _log(document: dict[str, Any]) -> ClientLog:
    counted = {name: Counter(document[name]) for name in ("taken", "refused")}
    return ClientLog(**{**document, **counted})


if __name__ == "__main__":
    if _INSIDE not in sys.argv:
        raise SystemExit(main())
    given: dict[str, Any] = json.load(sys.stdin)
    kills = tuple(Kill(**kill) for kill in given.pop("kills"))
    print(json.dumps([vars(log) for log in _inside(Played(**given, kills=kills))]))
