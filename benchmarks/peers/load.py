"""A closed loop of requests over kept-alive connections, the same for every server."""

from __future__ import annotations

import json
import math
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

import httptools
import numpy as np

Address = tuple[str, int] | str
"""Of TCP, or the path of a Unix socket."""
_GIVE_UP_SECONDS = 30.0
_REFUSALS = (422, 429, 503)


@dataclass(frozen=True)
class Request:
    """What is posted: ``headers`` are whole lines without their ends."""

    path: str
    body: bytes
    headers: tuple[str, ...] = ()

    def wire(self) -> bytes:
        lines = [
            f"POST {self.path} HTTP/1.1",
            "Host: localhost",
            *self.headers,
            f"Content-Length: {len(self.body)}",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + self.body


@dataclass(frozen=True)
class Answer:
    """``number`` is the request's place in the sequence that was sent."""

    number: int
    status: int
    seconds: float
    body: bytes


@dataclass
class Answers:
    """All answers of a load that lasted ``seconds``; the first ``in_time`` came before its end."""

    seconds: float
    answers: list[Answer] = field(default_factory=list)
    in_time: int = 0

    @property
    def good(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.status == 200]

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.goodput(math.inf)

    @property
    def p50(self) -> float:
        return float(np.median([answer.seconds for answer in self.good]))

    @property
    def mean(self) -> float:
        return float(np.mean([answer.seconds for answer in self.good]))

    def goodput(self, bound: float) -> float:
        """Good answers a second that came within ``bound`` seconds of their request."""
        good = (answer for answer in self.answers[: self.in_time] if answer.status == 200)
        return sum(answer.seconds <= bound for answer in good) / self.seconds


class HttpClient:
    """One connection, and the answer that it is reading."""

    def __init__(self, address: Address, timeout: float | None = None) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.settimeout(timeout)
        self.socket.connect(address)
        if family == socket.AF_INET:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = 0
        self.began = 0.0

    def send(self, number: int, request: bytes) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._is_complete = False
        self.number = number
        self.began = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> Answer | None:
        """The answer, once it is whole. RuntimeError if the server closes before."""
        chunk = self.socket.recv(1 << 18)
        if not chunk:
            raise RuntimeError("the server closed a connection")
        self._parser.feed_data(chunk)
        if not self._is_complete:
            return None
        seconds = time.perf_counter() - self.began
        status = self._parser.get_status_code()
        return Answer(self.number, status, seconds, b"".join(self._body))

    def ask(self, request: bytes) -> Answer:
        """Sends, and waits for the answer."""
        self.send(0, request)
        while (answer := self.receive()) is None:
            pass
        return answer

    def on_body(self, part: bytes) -> None:
        self._body.append(part)

    def on_message_complete(self) -> None:
        self._is_complete = True


def ask(address: Address, request: bytes) -> Answer:
    """The answer to one request on a connection of its own."""
    client = HttpClient(address, _GIVE_UP_SECONDS)
    try:
        return client.ask(request)
    finally:
        client.socket.close()


def drive(address: Address, requests: Sequence[bytes], connections: int, seconds: float) -> Answers:
    """Each of ``connections`` sends the next request once it has its answer. One that is refused
    comes back when the refusal says. RuntimeError for any other status than 200, or no answer in
    30 s."""
    clients = {
        client.socket.fileno(): client for client in map(HttpClient, [address] * connections)
    }
    poll = select.epoll()
    result, refused, sent = Answers(seconds), list[tuple[float, int]](), 0

    def send_next(handle: int) -> None:
        nonlocal sent
        clients[handle].send(sent, requests[sent % len(requests)])
        sent += 1

    try:
        end = time.perf_counter() + seconds
        for handle in clients:
            poll.register(handle, select.EPOLLIN)
            send_next(handle)
        waited_for, last = connections, time.perf_counter()
        while waited_for or refused:
            until = refused[0][0] if refused else last + _GIVE_UP_SECONDS
            ready = poll.poll(max(0.0, until - time.perf_counter()))
            now = time.perf_counter()
            if now >= end:
                refused.clear()
            if not ready and waited_for and now - last > _GIVE_UP_SECONDS:
                raise RuntimeError(f"no answer in {_GIVE_UP_SECONDS:g} s")
            while refused and refused[0][0] <= now:
                send_next(heappop(refused)[1])
                waited_for += 1
            for handle, _ in ready:
                answer = clients[handle].receive()
                if answer is None:
                    continue
                last = now
                result.answers.append(answer)
                if now >= end:
                    waited_for -= 1
                    continue
                result.in_time += 1
                if answer.status == 200:
                    send_next(handle)
                else:
                    waited_for -= 1
                    heappush(refused, (now + _retry_after(answer), handle))
    finally:
        poll.close()
        for client in clients.values():
            client.socket.close()
    return result


def _retry_after(answer: Answer) -> float:
    """Seconds. RuntimeError unless the answer is a refusal."""
    if answer.status not in _REFUSALS:
        text = answer.body[:300].decode(errors="replace")
        raise RuntimeError(f"the server answered {answer.status}: {text}")
    return float(json.loads(answer.body).get("retry_after_s") or 0.1)
