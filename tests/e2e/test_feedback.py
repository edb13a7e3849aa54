"""Labels posted back, audits, and what a daemon does once its guarantee no longer holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import delen

FLOOR = 0.7


@pytest.fixture(scope="module")
def folder(write_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("feedback")
    write_bundle(folder / "tiny")
    return folder


@pytest.fixture
def start(launcher: Any, folder: Path) -> Callable[..., Any]:
    """Starts a daemon that serves the tiny network alone."""

    def start(**policies: Any) -> Any:
        models = {"path": str(folder), "default": "tiny", "load": ["tiny"]}
        return launcher.start({"models": models, "policies": policies})

    return start


def random_images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(4).integers(0, 256, (count, 4, 4, 1), dtype=np.uint8)


def answers(daemon: Any, count: int, **query: Any) -> list[dict[str, Any]]:
    received = [daemon.api.raw(image, **query) for image in random_images(count)]
    assert {answer.status for answer in received} == {200}
    return [answer.json() for answer in received]


def guarantee(daemon: Any) -> dict[str, Any]:
    found: dict[str, Any] = daemon.api.get("/v1/models/tiny").json()["guarantee"]
    return found


def test_labels_come_back_and_are_counted(
    start: Callable[..., Any], metric: Callable[..., float]
) -> None:
    daemon = start(audit_fraction=0.0)
    fresh = guarantee(daemon)
    assert fresh == {
        "holds": True,
        "source": None,
        "samples": 0,
        "errors": 0,
        "promised": None,
        "evidence": 1.0,
        "delta": pytest.approx(0.05),
    }
    first, second, third = answers(daemon, 3, min_accuracy=FLOOR)
    index = first["predictions"][0]["index"]
    posted = {first["request_id"]: index, second["request_id"]: "class 0", "nobody": 1}
    document = daemon.api.as_json({"labels": posted}, "/v1/models/tiny/feedback").json()
    assert (document["accepted"], document["repeated"], document["unknown"]) == (2, 0, ["nobody"])
    assert document["guarantee"]["samples"] == 2
    assert document["guarantee"]["promised"] == pytest.approx(1 - FLOOR)
    with delen.Client(daemon.url) as client:
        again = client.feedback({first["request_id"]: np.int64(index)})
        assert (again.accepted, again.repeated, again.guarantee.holds) == (0, 1, True)
        with pytest.raises(delen.InvalidInput, match="'horse' is not a class of tiny"):
            client.feedback({third["request_id"]: "horse"}, model="tiny")

    async def post() -> Any:
        async with delen.AsyncClient(daemon.url, model="tiny") as client:
            return await client.feedback({third["request_id"]: 2})

    feedback = asyncio.run(post())
    assert (feedback.accepted, feedback.guarantee.source) == (1, "labels")
    assert metric(daemon.api, "delen_labelled_answers_total", model="tiny") == 3
    assert metric(daemon.api, "delen_guarantee_holds", model="tiny") == 1


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ({}, "invalid_input", "labels"),
        ({"labels": [1]}, "invalid_input", "labels"),
        ({"labels": {"a": 4}}, "invalid_input", "4 is not a class"),
        ({"labels": {"a": True}}, "invalid_input", "not true"),
        ({"labels": {"a": None}}, "invalid_input", "the index or the name of a class"),
        ({"labels": {}, "model": "tiny"}, "unknown_field", "model"),
        ({"labels": dict.fromkeys(map(str, range(100_001)), 0)}, "invalid_input", "at most 100000"),
        ([], "invalid_input", "object"),
    ],
)
def test_wrong_labels_are_refused(
    launcher: Any, shared: Any, body: Any, code: str, says: str
) -> None:
    error = shared.api.as_json(body, "/v1/feedback").error(400, code)
    assert says in error["error"]
    assert shared.api.get("/v1/feedback").error(405, "method_not_allowed")
    for labels in ({}, {"a": 1.5}):
        elsewhere = shared.api.as_json({"labels": labels}, "/v1/models/no/feedback")
        assert elsewhere.error(404, "model_not_found")


@pytest.fixture(scope="module")
def shared(launcher: Any, folder: Path) -> Any:
    models = {"path": str(folder), "default": "tiny", "load": ["tiny"]}
    return launcher.start({"models": models})


def test_a_shift_is_told_and_answers_go_deeper(
    start: Callable[..., Any], metric: Callable[..., float]
) -> None:
    daemon = start(audit_fraction=0.0)
    before = answers(daemon, 60, min_accuracy=FLOOR)
    assert min(answer["exit"] for answer in before) < 2
    labels = {a["request_id"]: (a["predictions"][0]["index"] + 1) % 4 for a in before}
    document = daemon.api.as_json({"labels": labels}, "/v1/feedback").json()
    assert document["guarantee"]["holds"] is False
    assert guarantee(daemon)["holds"] is False
    assert metric(daemon.api, "delen_guarantee_holds", model="tiny") == 0
    assert "the guarantee of tiny no longer holds, by labels" in daemon.log()
    for after in answers(daemon, 10, min_accuracy=FLOOR):
        assert (after["exit"], after["reason"]) == (2, "final")
        accuracy = after["receipt"]["accuracy"]
        assert (accuracy["guarantee"], accuracy["met"]) == (None, False)
    assert {after["exit"] for after in answers(daemon, 10)} == {2}
    assert daemon.api.post("/v1/models/tiny/unload").status == 200
    assert daemon.api.post("/v1/models/tiny/load").status == 200
    assert guarantee(daemon)["holds"] is True


def test_confident_answers_are_audited_without_labels(
    start: Callable[..., Any], metric: Callable[..., float], until: Callable[..., Any]
) -> None:
    daemon = start(audit_fraction=0.5)
    stops = sum(
        answer["reason"] == "confident" for answer in answers(daemon, 40, min_accuracy=FLOOR)
    )
    assert stops > 4
    until(
        lambda: metric(daemon.api, "delen_audited_answers_total", model="tiny") >= stops // 4,
        "audits in the metrics",
    )
    found = guarantee(daemon)
    assert (found["holds"], found["source"]) == (True, "agreement")
    assert found["samples"] <= stops // 2
    assert daemon.terminate() == 0


def test_floors_may_be_certified_by_upper_confidence_bounds(start: Callable[..., Any]) -> None:
    exact, general = start(procedure="ltt"), start(procedure="ucb", lossless="agreement")
    highest = [
        daemon.api.plan(min_accuracy=0.9999)["nearest"]["min_accuracy"]
        for daemon in (exact, general)
    ]
    assert highest[1] < highest[0]
    assert general.api.plan(min_accuracy=highest[1])["guarantee"] == 0.95
