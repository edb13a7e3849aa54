"""Both clients have the same methods, for people, for tools and for type checkers."""

from __future__ import annotations

import inspect
import subprocess
import sys
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delen.core.plan import Preview
from delen.errors import DelenError, InvalidInput
from delen.sdk.async_client import AsyncClient
from delen.sdk.client import Client
from delen.sdk.http import Answer
from delen.sdk.requests import Calls

CALLS = [name for name in vars(Calls) if not name.startswith("_")]
CHECKED = """
from collections.abc import Coroutine
from typing import Any
from typing_extensions import assert_type
import delen

def sync(client: delen.Client) -> None:
    assert_type(client.plan(min_accuracy=0.9), delen.Preview)
    assert_type(client.request("a"), delen.Settled)
    assert_type(client.models(), list[dict[str, Any]])
    client.infer(b"", max_latency=0.1, on_infeasible="best_effort")

async def not_sync(client: delen.AsyncClient) -> None:
    started: Coroutine[Any, Any, delen.Preview] = client.plan(min_accuracy=0.9)
    assert_type(await started, delen.Preview)
    assert_type(await client.plan(min_accuracy=0.9), delen.Preview)
"""
REFUSED = {
    "client.plan(0.9)": "Too many positional arguments",
    'client.plan(min_accuracy="high")': "incompatible type",
    "client.plan(accuracy=0.9)": "Unexpected keyword argument",
    'client.infer(b"", on_infeasible="retry")': "incompatible type",
    "client.request()": "Too few arguments",
}


def test_both_clients_make_every_call() -> None:
    assert {"infer", "plan", "feedback", "models", "request", "set_tenant"} <= set(CALLS)
    for client in (Client, AsyncClient):
        assert set(CALLS) <= set(vars(client))


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_a_method_is_described_as_its_call(client: type, name: str) -> None:
    method, call = getattr(client, name), getattr(Calls, name)
    assert (method.__name__, method.__doc__) == (name, call.__doc__)
    assert inspect.signature(method).parameters == inspect.signature(call).parameters
    assert inspect.iscoroutinefunction(method) == (client is AsyncClient)


def test_a_method_says_what_it_returns() -> None:
    assert inspect.signature(Client.plan).return_annotation == Preview.__name__
    assert inspect.signature(Client.models).return_annotation == "list[dict[str, Any]]"


def test_options_are_keywords_alone() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(TypeError):
        client.plan(0.9)  # type: ignore[misc]


@pytest.mark.parametrize("timeout", [0, -1.0, nan, inf, 1e12, "x", True])
@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_nobody_waits_for_what_is_not_a_time(client: type, timeout: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        client("http://127.0.0.1:9", timeout=timeout)
    assert caught.value.field == "timeout"
    with pytest.raises(InvalidInput) as caught:
        Calls(None, "default").infer(np.zeros((1, 1, 3), np.uint8), timeout=timeout)
    assert caught.value.field == "timeout"


@pytest.mark.parametrize("begun", [None, "photo.png", []])
def test_only_a_result_is_resumed(begun: Any) -> None:
    with pytest.raises(InvalidInput, match="begun must be a Result") as caught:
        Calls(None, "default").resume(begun)
    assert caught.value.field == "begun"


@pytest.mark.parametrize("wrong", [5, "", [1], b"a", "\ud800"])
@pytest.mark.parametrize("call", ["infer", "plan", "feedback", "load", "unload"])
def test_what_is_not_the_name_of_a_model_is_refused(call: str, wrong: Any) -> None:
    arguments = {"infer": (np.zeros(3),), "feedback": ({},)}.get(call, ())
    build = getattr(Calls(None, "default"), call)
    with pytest.raises(InvalidInput, match="model must be the name of a model") as caught:
        build(*arguments, model=wrong)
    assert caught.value.field == "model"
    with pytest.raises(InvalidInput, match="model must be the name of a model"):
        Calls(wrong, "default")


@pytest.mark.parametrize(
    "labels",
    [
        *([1], 5, None, "ab", {5: 1}, {"": 1}, {"\ud800": 1}),
        *({"a": 1.5}, {"a": None}, {"a": ""}, {"a": "\ud800"}),
    ],
)
def test_labels_are_of_requests(labels: Any) -> None:
    with pytest.raises(InvalidInput, match="label") as caught:
        Calls(None, "default").feedback(labels)
    assert caught.value.field == "labels"


@pytest.mark.parametrize("wrong", [5, None, "", b"x", "\ud800"])
def test_a_request_has_a_text_as_its_id(wrong: Any) -> None:
    with pytest.raises(InvalidInput, match="request_id must be the id of a request"):
        Calls(None, "default").request(wrong)


@pytest.mark.parametrize("mode", [5, None, "", "\ud800"])
def test_a_power_mode_has_a_name(mode: Any) -> None:
    with pytest.raises(InvalidInput, match="mode must be the name or number of a mode"):
        Calls(None, "default").set_power(mode=mode)


@pytest.mark.parametrize("wrong", ["", "5", None, [1], True, nan, inf, object(), -1.0, 1e9])
@pytest.mark.parametrize("field", ["seconds", "step"])
def test_a_history_goes_back_by_a_number_of_seconds(field: str, wrong: Any) -> None:
    with pytest.raises(InvalidInput, match=field) as caught:
        Calls(None, "default").power_history(**{field: wrong})
    assert caught.value.field == field


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "hub://127.0.0.1:9"])
@pytest.mark.parametrize("field", ["url", "model", "tenant", "token", "ca_file", "timeout"])
def test_a_client_names_what_it_cannot_be_made_with(client: type, url: str, field: str) -> None:
    with pytest.raises(InvalidInput, match=field) as caught:
        client(**{"url": url, field: [1]})
    assert caught.value.field == field


@pytest.mark.parametrize("url", ["https://127.0.0.1:9", "hub://127.0.0.1:9"])
def test_a_file_of_certificates_has_a_name(url: str) -> None:
    with pytest.raises(InvalidInput, match="ca_file is ''; it must be the path of a file"):
        Client(url, ca_file="")


def test_another_servers_answer_is_no_list_of_models() -> None:
    call = Calls(None, "default").models()
    for body in (b"{}", b'{"models": 1}', b"\xff", b"<html>"):
        with pytest.raises(DelenError, match="not as expected"):
            call.answer(Answer(200, body), lambda *_: None)
    assert call.answer(Answer(200, b'{"models": [{}]}'), lambda *_: None) == [{}]


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_a_wrong_call_is_named_as_its_user_made_it(client: type) -> None:
    with pytest.raises(TypeError, match=rf"^{client.__name__}\.plan\(\) "):
        started = client("http://127.0.0.1:9").plan(floor=0.9)
        started.send(None)


def test_a_type_checker_sees_arguments_and_answers(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    wrong = "\n".join(f"    {call}" for call in REFUSED)
    file = tmp_path / "app.py"
    file.write_text(f"{CHECKED}\ndef wrong(client: delen.Client) -> None:\n{wrong}\n")
    command = [sys.executable, "-m", "mypy", "--strict", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path.cwd())
    errors = [line for line in ended.stdout.splitlines() if ": error: " in line]
    assert len(errors) == len(REFUSED), ended.stdout + ended.stderr
    for error, reason in zip(errors, REFUSED.values(), strict=True):
        assert reason in error
