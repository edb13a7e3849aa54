"""Who may change the daemon: this machine, and whoever has the token."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from api.caller import Caller
from api.guard import Guard
from delen.errors import ConfigError, Forbidden

ELSEWHERE = ["192.0.2.7", "2001:db8::7", "10.0.0.1", "0.0.0.0", "localhost"]
HERE = ["127.0.0.1", "127.8.0.1", "::1", "", None]
CHANGES = [
    ("POST", "/v1/models/m/load", None),
    ("POST", "/v1/models/m/unload", None),
    ("PUT", "/v1/tenants/cam", {"weight": 2.0}),
    ("PUT", "/v1/power", {"watt_cap_w": 9.0}),
]


@pytest.mark.parametrize("peer", ELSEWHERE)
@pytest.mark.parametrize(("method", "path", "document"), CHANGES, ids=lambda value: str(value))
def test_another_machine_changes_nothing_without_a_token(
    client: FlaskClient, peer: str, method: str, path: str, document: Any
) -> None:
    answer = client.open(path, method=method, json=document, environ_base={"REMOTE_ADDR": peer})
    assert answer.status_code == 403
    assert answer.get_json()["code"] == "forbidden"
    assert "server.token_file" in answer.get_json()["error"]


@pytest.mark.parametrize("peer", HERE)
def test_this_machine_needs_no_token(client: FlaskClient, peer: str | None) -> None:
    answer = client.put("/v1/tenants/cam", json={"weight": 2.0}, environ_base={"REMOTE_ADDR": peer})
    assert answer.status_code == 200


@pytest.mark.parametrize("peer", [ELSEWHERE[0], HERE[0]])
@pytest.mark.parametrize(
    ("sent", "status"), [(None, 401), ("Bearer wrong", 403), ("Bearer sesame", 200)]
)
def test_with_a_token_it_alone_counts(
    make_client: Callable[..., FlaskClient],
    tmp_path: Path,
    peer: str,
    sent: str | None,
    status: int,
) -> None:
    (tmp_path / "token").write_text("sesame\n")
    answer = make_client(tmp_path / "token").put(
        "/v1/tenants/cam",
        json={"weight": 2.0},
        headers={} if sent is None else {"Authorization": sent},
        environ_base={"REMOTE_ADDR": peer},
    )
    assert answer.status_code == status


def test_whoever_asks_may_read(client: FlaskClient) -> None:
    answer = client.get("/v1/tenants", environ_base={"REMOTE_ADDR": ELSEWHERE[0]})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
        ({}, 415, "unsupported_media_type"),
        ({"Content-Type": "application/json", "Host": "evil.example:8000"}, 403, "forbidden"),
        ({"Content-Type": "application/json", "Host": "127.0.0.1.evil.example"}, 403, "forbidden"),
        ({"Content-Type": "application/json", "Host": "192.0.2.7:8000"}, 403, "forbidden"),
        ({"Content-Type": "application/json", "Host": "[::1"}, 403, "forbidden"),
        ({"Content-Type": "application/json", "Origin": "http://evil.example"}, 403, "forbidden"),
        ({"Content-Type": "application/json", "Origin": "null"}, 403, "forbidden"),
        ({"Content-Type": "application/json", "Origin": "http://localhost:1"}, 403, "forbidden"),
    ],
)
def test_what_a_web_page_can_send_changes_nothing(
    client: FlaskClient, headers: dict[str, str], status: int, code: str
) -> None:
    answer = client.put(
        "/v1/tenants/cam",
        data='{"weight": 2.0}',
        headers=headers,
        environ_base={"REMOTE_ADDR": "127.0.0.1"},
    )
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "localhost:8000"},
        {"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:8000"},
        {"Host": "[::1]:8000", "Content-Type": "application/json; charset=utf-8"},
        {"Host": socket.gethostname()},
        {"Host": "board.localhost."},
    ],
)
def test_programs_and_pages_of_the_daemon_change_it(
    client: FlaskClient, headers: dict[str, str]
) -> None:
    answer = client.put(
        "/v1/tenants/cam",
        data='{"weight": 2.0}',
        headers={"Content-Type": "application/json", **headers},
        environ_base={"REMOTE_ADDR": "127.0.0.1"},
    )
    assert answer.status_code == 200


def test_a_token_is_enough_for_any_host_and_content_type_but_not_for_another_sites_page(
    make_client: Callable[..., FlaskClient], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("sesame")
    client = make_client(tmp_path / "token")
    token = {"Authorization": "Bearer sesame", "Host": "board.example"}

    def put(**headers: str) -> int:
        sent = {**token, **headers}
        return client.put("/v1/tenants/cam", data='{"weight": 2}', headers=sent).status_code

    assert put() == 200
    assert put(Origin="https://board.example") == 200
    assert put(Origin="https://evil.example") == 403


def test_who_may_write_the_token_is_checked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    file.write_text("sesame")
    file.chmod(0o640)
    assert Guard(str(file)).has_token
    assert caplog.text == ""
    file.chmod(0o644)
    assert Guard(str(file)).has_token
    assert f"server.token_file {file}" in caplog.text
    file.chmod(0o666)
    with pytest.raises(ConfigError, match=r"server\.token_file"):
        Guard(str(file))


@pytest.mark.parametrize("user", [0, os.geteuid(), 4711, None])
def test_where_users_are_bound_to_tenants_apps_change_nothing(user: int | None) -> None:
    guard, caller = Guard("", users_are_bound=True), Caller("127.0.0.1", lambda: user)
    if user in (0, os.geteuid()):
        guard.check_caller(caller)
        return
    with pytest.raises(Forbidden, match=r"tenants\.users"):
        guard.check_caller(caller)
