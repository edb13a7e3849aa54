"""A job that begins on one daemon and goes on on another."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import delen
from delen.core.bounds import Encoding
from delen.profile.profile import Disturbance, HostCosts, Profile, Quantiles
from delen.profile.reader import load_profile
from tests.builders.daemon import Answer, Api, Daemon, Launcher

Image8 = NDArray[np.uint8]
RESUME = "/v1/models/cifar10-resnet/resume"
RAW = "application/octet-stream"


@pytest.fixture(scope="module")
def board(launcher: Launcher) -> Iterator[delen.Client]:
    """A node beside the shared daemon, with the same bundle."""
    daemon = launcher.start({"server": {"node": "board"}})
    with delen.Client(daemon.url) as client:
        yield client
    launcher.stop(daemon)


@pytest.fixture
def server(daemon: Daemon) -> Iterator[delen.Client]:
    with delen.Client(daemon.url) as client:
        yield client


@pytest.fixture(scope="module")
def begun(board: delen.Client, images: Image8) -> delen.Result:
    result: delen.Result = board.infer(images[0], max_latency=20.0, suspend_at=1)
    assert result.reason == "suspended"
    return result


def post(api: Api, begun: delen.Result, path: str = RESUME, **changes: Any) -> Answer:
    """Resume it as any HTTP client would; ``changes`` are of the query, or its body and headers."""
    given = begun.suspended
    assert given is not None
    body = changes.pop("body", given.features)
    headers = {"X-Delen-Bundle": given.bundle, **changes.pop("headers", {})}
    query = {"exit": given.exit, **changes}
    return api.post(path, body=body, content_type=RAW, headers=headers, query=query)


@pytest.mark.parametrize("encoding", ["fp32", "fp16", "int8"])
def test_two_daemons_answer_as_one(
    board: delen.Client, server: delen.Client, images: Image8, encoding: Encoding
) -> None:
    alone = server.infer(images[1], max_latency=20.0)
    began = time.monotonic()
    begun = board.infer(images[1], max_latency=20.0, suspend_at=2, encoding=encoding)
    assert (begun.exit, begun.suspended.encoding) == (2, encoding)
    answer = server.resume(begun, since=began)
    assert (answer.exit, answer.reason, answer.index) == (alone.exit, alone.reason, alone.index)
    tolerance = {"fp32": 1e-5, "fp16": 0.01, "int8": 0.1}[encoding]
    np.testing.assert_allclose(answer.probabilities, alone.probabilities, atol=tolerance)
    receipt = answer.receipt
    assert [part.exits for part in receipt.parts] == [(0, 1, 2), (), (3, 4)]
    assert [part.node for part in receipt.parts][:2] == ["board", "link"]
    assert receipt.latency.value == pytest.approx(sum(part.latency for part in receipt.parts))
    assert receipt.latency.value <= time.monotonic() - began
    joules = [part.energy for part in receipt.parts if part.exits]
    assert receipt.energy.value == pytest.approx(sum(joules))
    assert (receipt.latency.bound, receipt.met) == (20.0, True)
    settled = receipt.energy.settled()
    assert settled.value == pytest.approx(receipt.energy.value)
    assert server.request(answer.request_id).receipt.parts == receipt.parts


def test_a_floor_holds_over_both_nodes(
    board: delen.Client, server: delen.Client, images: Image8
) -> None:
    reasons = set()
    for image in images[:20]:
        alone = server.infer(np.asarray(image), min_accuracy=0.85, max_latency=20.0)
        begun = board.infer(image, min_accuracy=0.85, max_latency=20.0, suspend_at=1)
        answer = server.resume(begun) if begun.suspended else begun
        if alone.receipt.size == answer.receipt.size:
            assert (answer.exit, answer.index) == (alone.exit, alone.index)
        assert answer.receipt.accuracy.guarantee == 0.95
        assert answer.receipt.met
        reasons.add(begun.reason)
    assert reasons == {"confident", "suspended"}


def test_an_async_client_goes_on_with_it_too(daemon: Daemon, begun: delen.Result) -> None:
    async def resume() -> delen.Result:
        async with delen.AsyncClient(daemon.unix_url) as client:
            result: delen.Result = await client.resume(begun)
            return result

    assert asyncio.run(resume()).exit == 4


def test_any_http_client_can_hand_over(board: delen.Client, api: Api, images: Image8) -> None:
    first = Api(board.url).raw(images[2], max_latency_ms=20_000, suspend_at=0).json()
    given = first["suspended"]
    assert given["size"] == [32, 32]
    answer = api.post(
        RESUME,
        body=base64.b64decode(given["features"]),
        content_type=RAW,
        headers={
            "X-Delen-Bundle": given["bundle"],
            "X-Delen-Parts": json.dumps(first["receipt"]["parts"]),
        },
        query={"exit": 0, "encoding": "fp16", "size": "32x32", "max_latency_ms": 20_000},
    ).json()
    parts = answer["receipt"]["parts"]
    assert parts[0] == first["receipt"]["parts"][0]
    assert answer["receipt"]["latency_ms"]["value"] == pytest.approx(
        sum(part["latency_ms"] for part in parts)
    )


def test_a_job_that_begins_here_has_its_bounds_for_itself(api: Api, begun: delen.Result) -> None:
    answer = post(api, begun, max_latency_ms=20_000).json()
    (part,) = answer["receipt"]["parts"]
    assert part["exits"] == [2, 3, 4]
    assert answer["receipt"]["latency_ms"]["value"] == pytest.approx(part["latency_ms"])


def test_what_was_spent_can_break_a_bound(api: Api, begun: delen.Result) -> None:
    spent = json.dumps([{"node": "board", "exits": [0, 1], "latency_ms": 900, "energy_mj": None}])
    refused = post(api, begun, headers={"X-Delen-Parts": spent}, max_latency_ms=901)
    assert refused.error(422, "infeasible_bound")["nearest"]["max_latency_ms"] > 901


def test_another_bundle_is_refused_with_both_digests(api: Api, begun: delen.Result) -> None:
    assert begun.suspended is not None
    other = "0" * 64
    sentence = post(api, begun, headers={"X-Delen-Bundle": other}).error(409, "bundles_differ")
    assert other in sentence["error"]
    assert begun.suspended.bundle in sentence["error"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"body": b"\0" * 100}, "features"),
        ({"body": b""}, "features"),
        ({"encoding": "fp32"}, "features"),
        ({"encoding": "fp64"}, "encoding"),
        ({"body": b"\xff\x7f" * (64 * 16 * 16)}, "features"),
        ({"exit": 4}, "exit"),
        ({"exit": 40}, "exit"),
        ({"exit": -1}, "exit"),
        ({"exit": ""}, "exit"),
        ({"size": "33x33"}, "size"),
        ({"size": "large"}, "size"),
        ({"size": "24x24"}, "features"),
        ({"threshold": 2}, "threshold"),
        ({"confidence": "nan"}, "confidence"),
        ({"headers": {"X-Delen-Bundle": ""}}, "X-Delen-Bundle"),
        ({"headers": {"X-Delen-Parts": "{"}}, "X-Delen-Parts"),
        ({"headers": {"X-Delen-Parts": '{"a": 1}'}}, "X-Delen-Parts"),
        ({"headers": {"X-Delen-Parts": '[{"node": "a"}]'}}, "X-Delen-Parts"),
        ({"headers": {"X-Delen-Parts": '[{"node": "a", "latency_ms": -1}]'}}, "X-Delen-Parts"),
        ({"headers": {"X-Delen-Parts": '[{"node": "a", "latency_ms": NaN}]'}}, "X-Delen-Parts"),
        ({"headers": {"X-Delen-Parts": '[{"node": "", "latency_ms": 1}]'}}, "X-Delen-Parts"),
        ({"suspend_at": 2}, "suspend_at"),
    ],
)
def test_what_is_wrong_is_named(
    api: Api, begun: delen.Result, changes: dict[str, Any], field: str
) -> None:
    answer = post(api, begun, **changes)
    assert answer.status == 400, answer.body
    assert answer.json()["field"] == field, answer.body


def test_features_of_a_wrong_length_say_which_is_right(api: Api, begun: delen.Result) -> None:
    error = post(api, begun, body=bytes(7)).error(400, "invalid_input")["error"]
    assert "[64, 16, 16]" in error
    assert str(2 * 64 * 16 * 16) in error


def test_features_are_no_json(api: Api, begun: delen.Result) -> None:
    assert begun.suspended is not None
    answer = api.post(RESUME, body=b"{}", content_type="application/json", query={"exit": 1})
    answer.error(415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"suspend_at": 4}, "suspend_at"),
        ({"suspend_at": -1}, "suspend_at"),
        ({"encoding": "fp16"}, "encoding"),
        ({"suspend_at": 1, "encoding": "fp8"}, "encoding"),
    ],
)
def test_where_nothing_can_be_suspended_is_named(
    api: Api, images: Image8, query: dict[str, Any], field: str
) -> None:
    assert api.raw(images[0], **query).error(400, "invalid_input")["field"] == field


def test_an_answer_is_not_resumed(server: delen.Client, images: Image8) -> None:
    with pytest.raises(delen.InvalidInput):
        server.resume(server.infer(images[0]))


def test_when_the_other_node_dies_the_answer_of_the_exit_before_is_still_there(
    launcher: Launcher, begun: delen.Result
) -> None:
    other = launcher.start()
    other.process.kill()
    other.process.wait()
    with delen.Client(other.url) as client, pytest.raises(delen.DaemonUnreachable):
        client.resume(begun)
    assert (begun.exit, begun.label is not None) == (1, True)


FLOOR = 0.9
SECOND = Quantiles(1.0, 1.0, 1.0, 1.0)
CAP = 1_800.0
"""Milliseconds."""


def slowed(profile: Profile) -> Profile:
    """As if each segment took a second, and nothing had to be measured again."""
    segments: list[Mapping[int, Any]] = [
        {batch: replace(cost, latency=SECOND) for batch, cost in segment.items()}
        for segment in profile.segments
    ]
    return replace(
        profile,
        segments=tuple(segments),
        host=HostCosts(),
        measured=Disturbance(False, 0.0),
        smaller=tuple(map(slowed, profile.smaller)),
    )


@dataclass(frozen=True)
class Pair:
    """A board that believes that it is slow, and its peer."""

    board: Daemon
    peer: Daemon

    def infer(self, image: Image8) -> Answer:
        """In the time of exit 0 on the board, with a floor that it does not keep."""
        bounds = {"max_latency_ms": CAP, "min_accuracy": FLOOR}
        return self.board.api.raw(image, tenant="camera", **bounds)


@pytest.fixture(scope="module")
def pair(
    launcher: Launcher,
    daemon: Daemon,
    state: Path,
    images: Image8,
    tmp_path_factory: pytest.TempPathFactory,
    until: Callable[..., Any],
) -> Iterator[Pair]:
    own = tmp_path_factory.mktemp("slow")
    for file in state.glob("profiles/cifar10-resnet-*/*.json"):
        copy = own / file.relative_to(state)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(slowed(load_profile(file)).to_json())
    peer = launcher.start({"server": {"node": "server"}})
    board = launcher.start(
        {
            "server": {"node": "board"},
            "state": {"path": str(own)},
            "fleet": {"peers": [peer.url]},
        }
    )
    pair = Pair(board, peer)
    until(lambda: pair.infer(images[0]).status == 200, "the peer has said how it stands")
    yield pair
    launcher.stop(board)
    launcher.stop(peer)


def hard(pair: Pair, images: Image8) -> Image8:
    """An image that exit 0 is not confident of."""
    for image in images:
        if pair.infer(image).json()["exit"] > 0:
            return image
    raise AssertionError("all are easy")


def test_a_daemon_hands_over_what_it_cannot_keep_and_its_peer_can(
    pair: Pair, images: Image8
) -> None:
    exits = set()
    for image in images[:12]:
        answer = pair.infer(image).json()
        accuracy = answer["receipt"]["accuracy"]
        assert (accuracy["bound"], accuracy["guarantee"], accuracy["met"]) == (FLOOR, 0.95, True)
        alone = pair.peer.api.raw(image, min_accuracy=FLOOR, max_latency_ms=20_000).json()
        exits.add(answer["exit"])
        if not answer["exit"]:
            assert "parts" not in answer["receipt"]
            continue
        if alone["size"] == answer["size"]:
            assert answer["exit"] == alone["exit"]
            assert answer["predictions"][0]["index"] == alone["predictions"][0]["index"]
        parts = answer["receipt"]["parts"]
        assert [part["node"] for part in parts] == ["board", "link", "server"]
        assert [exit for part in parts for exit in part["exits"]] == [*range(answer["exit"] + 1)]
        total = sum(part["latency_ms"] for part in parts)
        assert answer["receipt"]["latency_ms"]["value"] == pytest.approx(total)
    assert 0 in exits and len(exits) > 1
    for daemon in (pair.board, pair.peer):
        assert daemon.api.get("/v1/tenants").json()["tenants"]["camera"]["answers"] > 0


def test_what_no_node_can_keep_is_refused_as_ever(pair: Pair, images: Image8) -> None:
    refused = pair.board.api.raw(images[0], max_latency_ms=CAP, min_accuracy=0.999)
    refused.error(422, "infeasible_bound")


def test_the_protocol_has_the_logits_of_the_node_that_answered(pair: Pair, images: Image8) -> None:
    image = hard(pair, images)
    body = {
        "inputs": [
            {
                "name": "input",
                "datatype": "UINT8",
                "shape": [1, 32, 32, 3],
                "data": [image.tolist()],
            }
        ],
        "parameters": {"max_latency_ms": CAP, "min_accuracy": FLOOR},
    }
    answer = pair.board.api.as_json(body, "/v2/models/cifar10-resnet/infer").json()
    assert answer["parameters"]["exit"] > 0
    logits = np.array(next(o["data"] for o in answer["outputs"] if o["name"] == "logits"))
    assert logits.argmax() == pair.infer(image).json()["predictions"][0]["index"]


def test_a_peer_that_hangs_or_dies_leaves_the_answer_of_the_exit_before(
    pair: Pair, images: Image8, until: Callable[..., Any]
) -> None:
    image = hard(pair, images)
    pair.peer.process.send_signal(signal.SIGSTOP)
    status = Path(f"/proc/{pair.peer.process.pid}/status")
    until(lambda: "T (stopped)" in status.read_text(), "the peer has stopped")
    try:
        answer = pair.infer(image).json()
    finally:
        pair.peer.process.send_signal(signal.SIGCONT)
    assert (answer["exit"], answer["reason"], answer["receipt"]["met"]) == (0, "latency", False)
    assert answer["receipt"]["accuracy"]["met"] is False
    own, tried = answer["receipt"]["parts"]
    assert (own["node"], own["exits"], tried["exits"]) == ("board", [0], [])
    assert tried["node"] in pair.peer.url
    until(lambda: pair.infer(image).json().get("exit"), "the peer takes jobs again")
    pair.peer.process.kill()
    pair.peer.process.wait()
    answer = pair.infer(image)
    assert answer.status == 422 or answer.json()["receipt"]["parts"][1]["exits"] == []
    until(lambda: pair.infer(image).status == 422, "the peer is out of the plans")
