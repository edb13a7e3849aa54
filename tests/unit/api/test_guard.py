"""Who may change the daemon: this machine, and whoever has the token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

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
