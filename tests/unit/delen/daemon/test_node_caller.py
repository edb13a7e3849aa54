"""What comes of a call to a node, whatever it answers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from delen.daemon.node_caller import LARGEST, Heard, NodeCaller
from delen.errors import DelenError, Overloaded
from delen.wire.errors import Error
from delen.wire.message import write
from tests.builders.fake_node import MODEL, POINTS, FakeNode, fake_node, standing


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with fake_node() as node:
        yield node


def ask(node: FakeNode, timeout: float = 5.0) -> Heard:
    return NodeCaller("near", node.url, "secret", timeout).ask()


def test_a_standing_is_read_in_si_units_and_called_as_the_hub_calls_the_node(
    node: FakeNode,
) -> None:
    link = {"bandwidth_mbps": 8.0, "delay_ms": 2.0}
    node.say(name="jetson-7", backlog_ms=40.0, price_per_joule=None, links={"far": link})
    said = ask(node).standing
    assert said is not None
    assert (said.node, said.backlog, said.price_per_joule) == ("near", 0.04, float("inf"))
    assert (said.links["far"].bandwidth, said.links["far"].delay) == (1e6, 0.002)
    model = said.model(MODEL)
    assert model is not None
    assert [point.latency for point in model.points] == [1e-3 * each[2] for each in POINTS]
    assert model.points[0].energy is None


WRONG_POINT = {"exit": 0, "size": None, "latencies_ms": [1.0], "payload_bytes": 1, "energy_mj": 1}
MODELS = standing()["models"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"hello", "JSON"),
        (b"\xff\xfe", ""),
        (b"[" * 100_000, ""),
        (b"null", "object"),
        (b"{}", "node"),
        (standing(backlog_ms="much"), "backlog_ms"),
        (standing(backlog_ms=-1.0), "backlog"),
        (standing(slowdown=0), "slowdown"),
        (standing(models=[{**MODELS[0], "points": []}]), "points"),
        (standing(models=[{**MODELS[0], "points": [{**WRONG_POINT, "accuracy": 2}]}]), "accuracy"),
        (standing(models=[{**MODELS[0], "load_ms": -1}]), "load"),
        (standing(models=MODELS + MODELS), "twice"),
        (standing(models=[{**MODELS[0], "points": 700 * MODELS[0]["points"]}]), "points"),
        (standing(links={"far": {"bandwidth_mbps": -1, "delay_ms": 0}}), "bandwidth"),
        (b"[" + LARGEST * b"1" + b"]", "larger"),
    ],
)
def test_nonsense_is_a_problem_that_lasts(node: FakeNode, body: object, named: str) -> None:
    node.body = body if isinstance(body, bytes) else json.dumps(body).encode()
    heard = ask(node)
    assert heard.standing is None
    assert heard.lasts
    assert named in (heard.problem or "")


def test_a_refusal_is_a_problem_that_lasts_and_one_for_now_does_not(node: FakeNode) -> None:
    node.status, node.body = 404, write(Error.of(DelenError("there is nothing here")))
    heard = ask(node)
    assert heard.lasts
    assert "there is nothing here" in (heard.problem or "")
    node.status, node.body = 503, write(Error.of(Overloaded("too busy", 1.0)))
    heard = ask(node)
    assert not heard.lasts
    assert "too busy" in (heard.problem or "")


def test_a_node_that_is_silent_or_gone_may_answer_the_next_time(node: FakeNode) -> None:
    node.wait.clear()
    late = ask(node, timeout=0.1)
    node.wait.set()
    with fake_node() as other:
        pass
    for heard in (late, ask(other)):
        assert heard.problem
        assert not heard.lasts
    assert ask(node).standing is not None


def test_directives_are_sent_with_the_token_and_a_refusal_is_heard(node: FakeNode) -> None:
    caller = NodeCaller("near", node.url, "secret", 5.0)
    assert caller.tell(b'{"lease_s":3}').problem is None
    assert (node.told, node.tokens) == ([{"lease_s": 3}], ["Bearer secret"])
    node.refusal = write(Error.of(DelenError("no tenant 'x'")))
    assert "no tenant 'x'" in (caller.tell(b"{}").problem or "")
