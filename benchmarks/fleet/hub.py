"""What a hub costs: its start, its memory and processor time, and how many routes it gives."""

from __future__ import annotations

import json
import select
import socket
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common import Figure, report
from benchmarks.fleet.members import (
    MODEL,
    Address,
    Member,
    make_daemon,
    make_hub,
    wait_ready,
    wait_up,
)
from benchmarks.processes import family, memory_mb, processor_seconds

NODES = 3
CLIENTS = 10_000
CONNECTIONS = 4
IDLE_SECONDS = 30.0


def main() -> list[Figure]:
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        folder = Path(place)
        nodes = []
        for number in range(NODES):
            node = make_daemon(f"node{number}", Address.here(), folder / "state", folder)
            stack.callback(node.stop)
            node.start()
            wait_ready(node)  # the first one profiles for all
            nodes.append(node)
        hub = make_hub(Address.here(), nodes, folder)
        stack.callback(hub.stop)
        return report("A hub of three nodes", _measure(hub, nodes))


def _measure(hub: Member, nodes: list[Member]) -> list[Figure]:
    began = time.perf_counter()
    hub.start()
    wait_up(hub, nodes)
    started = time.perf_counter() - began
    processes = family(hub.pid)
    used = processor_seconds(processes)
    time.sleep(IDLE_SECONDS)
    idle = processor_seconds(processes) - used
    memory = memory_mb(processes)
    _routes(hub.address)  # so that all clients are known
    used = processor_seconds([hub.pid])
    routes = _routes(hub.address)
    each = (processor_seconds([hub.pid]) - used) / CLIENTS
    return [
        Figure("exec to a standing of every node", (started,), "s"),
        Figure("processes", (len(processes),), ""),
        Figure("memory, shared pages once", (memory,), "MB"),
        Figure("processor, idle", (100 * idle / IDLE_SECONDS,), "%"),
        Figure(f"routes a second, {CLIENTS} clients known", (CLIENTS / routes.seconds,), "/s"),
        Figure("processor of a route", (1e3 * each,), "ms"),
        Figure("p99 of a route", (1e3 * float(np.quantile(routes.waits, 0.99)),), "ms"),
    ]


@dataclass(frozen=True, slots=True)
class _Routes:
    """How long all took, and each of them."""

    seconds: float
    waits: list[float]


def _routes(hub: Address) -> _Routes:
    """One route for each client, a few at a time."""
    requests = iter([_request(number) for number in range(CLIENTS)])
    poll, waits, sent = select.epoll(), list[float](), dict[int, float]()
    with ExitStack() as stack:
        connections = {}
        for _ in range(CONNECTIONS):
            made = stack.enter_context(socket.create_connection((hub.host, hub.port)))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            poll.register(made, select.EPOLLIN)
            connections[made.fileno()] = made
            sent[made.fileno()] = time.perf_counter()
            made.sendall(next(requests))
        began = time.perf_counter()
        while len(waits) < CLIENTS:
            for number, _ in poll.poll():
                answer = connections[number].recv(65_536)
                if not answer.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(f"the hub gave no route: {answer!r}")
                now = time.perf_counter()
                waits.append(now - sent[number])
                if (request := next(requests, None)) is not None:
                    sent[number] = now
                    connections[number].sendall(request)
        return _Routes(time.perf_counter() - began, waits)


def _request(client: int) -> bytes:
    links = {f"node{n}": {"bandwidth_mbps": 20.0, "delay_ms": 2.0} for n in range(NODES)}
    asked = {"client": f"client{client}", "model": MODEL, "fps": 1.0, "deadline_ms": 1000.0}
    body = json.dumps({**asked, "links": links}).encode()
    head = f"POST /v1/route HTTP/1.1\r\nHost: hub\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
