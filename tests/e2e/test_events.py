"""``/v1/events`` and ``/docs`` of a real daemon."""

from __future__ import annotations

import http.client
import json
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from api.events import _MOST_READERS
from tests.builders.daemon import wait_until

if TYPE_CHECKING:
    from tests.builders.daemon import Api, Launcher
    from tests.e2e.conftest import Metered

ELSEWHERE = re.compile(r"<(?:link|script|img|iframe)\s|https?://|@import|url\(")


class Events:
    """Reads one stream: the fields of each event, in order."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response

    def next(self) -> dict[str, str]:
        """The next event; {} at the end of the stream."""
        fields: dict[str, str] = {}
        for raw in iter(self._response.readline, b""):
            line = raw.decode().rstrip("\n")
            if not line and "event" in fields:
                return fields
            name, _, value = line.partition(": ")
            if name in ("id", "event", "data"):
                fields[name] = value
        return fields

    def until(self, name: str) -> Any:
        """The data of the next event of this name."""
        while (fields := self.next())["event"] != name:
            pass
        return json.loads(fields["data"])


@contextmanager
def listening(api: Api, **headers: str) -> Iterator[Events]:
    connection = api.connect()
    try:
        connection.request("GET", "/v1/events", headers=headers)
        response = connection.getresponse()
        assert response.status == 200
        assert response.headers.get_content_type() == "text/event-stream"
        assert response.readline().startswith(b"retry:")
        yield Events(response)
    finally:
        connection.close()


def test_what_becomes_of_models_is_streamed_and_can_be_caught_up_with(api: Api) -> None:
    with listening(api) as events:
        assert api.post("/v1/models/second/load").status == 200
        ready = events.next()
        assert ready["event"] == "model_ready"
        assert json.loads(ready["data"])["model"] == "second"
        assert api.post("/v1/models/second/unload").status == 200
        gone = events.next()
        assert gone["event"] == "model_unloaded" and gone["id"] != ready["id"]
    with listening(api, **{"Last-Event-ID": ready["id"]}) as events:
        assert events.next() == gone


def test_a_source_that_fails_and_comes_back_is_streamed(metered: Metered) -> None:
    with listening(metered.api) as events:
        metered.tree.vanish()
        try:
            degraded = events.until("source_degraded")
            assert degraded["source"] == "ina3221" and degraded["problem"]
        finally:
            metered.tree.come_back()
        assert events.until("source_recovered")["source"] == "ina3221"


def test_streams_end_when_the_daemon_drains_and_none_begins(launcher: Launcher) -> None:
    daemon = launcher.start({"server": {"drain_seconds": 60.0}})
    with listening(daemon.api) as events:
        daemon.process.send_signal(signal.SIGTERM)
        assert events.next()["event"] == "draining"
        assert events.next() == {}
    assert daemon.process.wait(60) == 0


def test_readers_hold_no_thread_and_are_so_many_at_most(api: Api) -> None:
    for _ in range(2):
        with ExitStack() as opened:
            for _ in range(_MOST_READERS):
                wait_until(partial(joined, opened, api), "room for a reader")
            assert api.get("/v1/models").status == 200
            refused = api.get("/v1/events")
            refused.error(503, "overloaded")
            assert refused.headers["Retry-After"]


def joined(readers: ExitStack, api: Api) -> bool:
    """Whether there is room yet for one more of ``readers``: those of before leave in time."""
    try:
        readers.enter_context(listening(api))
    except AssertionError:
        return False
    return True


def test_unknown_fields_are_refused(api: Api) -> None:
    assert api.get("/v1/events?since=1").error(400, "unknown_field")["field"] == "since"


def test_http_1_0_gets_a_sentence(api: Api) -> None:
    with api.socket() as client:
        client.sendall(b"GET /v1/events HTTP/1.0\r\n\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 400 ")


def test_the_page_of_docs_loads_nothing_from_elsewhere(api: Api) -> None:
    answer = api.get("/docs")
    assert answer.status == 200 and answer.headers.get_content_type() == "text/html"
    page = answer.body.decode()
    assert not ELSEWHERE.search(page), ELSEWHERE.search(page)
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/v1/models", "/openapi.json", "/v1/infer", "/healthz", "/docs"])
def test_no_other_site_may_read_answers(api: Api, path: str) -> None:
    for method in ("GET", "OPTIONS"):
        origin = {"Origin": "http://elsewhere", "Access-Control-Request-Method": "POST"}
        headers = api.request(method, path, headers=origin).headers
        assert not [name for name in headers if name.lower().startswith("access-control")]


def test_request_ids_cannot_be_guessed(api: Api) -> None:
    answers = [api.as_json({"input": [[[0] * 3] * 32] * 32}).json() for _ in range(3)]
    ids = [answer["request_id"] for answer in answers]
    assert all(re.fullmatch("[0-9a-f]{16}", each) for each in ids)
    assert len({each[:6] for each in ids}) == 3
