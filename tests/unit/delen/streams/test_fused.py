"""A local network that answers in time, and remote ones that do not, or say strange things."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from delen.bundle.manifest import InputSpec
from delen.core.result import (
    AccuracyOutcome,
    EnergyOutcome,
    LatencyOutcome,
    Prediction,
    Receipt,
    Result,
)
from delen.errors import DelenError, InvalidInput, Overloaded
from delen.streams.async_fused import AsyncFused
from delen.streams.frames import Frame
from delen.streams.fused import Fused

LABELS = ("cat", "dog", "frog")
FRAME = np.zeros(4, np.uint8)
RECEIPT = Receipt(
    LatencyOutcome(None, 0.01, 0.0, 0.01, None),
    AccuracyOutcome(None, None, None, None, None),
    EnergyOutcome(None, None, None, "unknown", None, None, None),
)


@dataclass
class Network:
    """Answers each frame with the next of ``says``, the last again and again, when ``gate`` is
    open."""

    says: Sequence[Any]
    labels: Sequence[str | None] = LABELS
    version: str = "1"
    gate: threading.Event = field(default_factory=threading.Event)
    asked: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def manifest(self) -> Any:
        return SimpleNamespace(
            name="net",
            version=self.version,
            input=InputSpec("uint8", (4,), None),
            classes=len(self.labels),
            labels=None if None in self.labels else self.labels,
        )

    def infer(self, x: Any, **arguments: Any) -> Any:
        said = self.says[min(len(self.asked), len(self.says) - 1)]
        self.asked.append(arguments)
        self.gate.wait()
        if isinstance(said, Exception):
            raise said
        listed = [Prediction(0, self.labels[0], 0.0)]
        values = None if said is None else np.asarray(said, np.float32)
        return Result(
            "net", self.version, "1", tuple(listed), values, 0, 1, "final", RECEIPT, "default", None
        )


CAT, DOG = (0.7, 0.2, 0.1), (0.0, 1.0, 0.0)


def play(fused: Fused, frames: int) -> None:
    """Some frames, each with whatever the remote network says of it."""
    for _ in range(frames):
        fused.infer(FRAME)
        fused.wait()


def lost(fused: Fused) -> dict[str, int]:
    return {cause: count for cause, count in fused.lost.items() if count}


def test_a_remote_answer_is_fused_and_the_result_says_how_old_it_is() -> None:
    remote = Network([DOG])
    remote.gate.clear()
    fused = Fused(Network([CAT]), remote, period=3)
    first = fused.infer(FRAME)
    remote.gate.set()
    assert (first.frame, first.label, first.sent, first.result.index) == (0, "cat", True, 0)
    fused.wait()
    second = fused.infer(FRAME)
    assert (second.label, second.index, second.remote, second.sent) == ("dog", 1, 0, False)
    assert second.probability > 0.5
    assert second.age == pytest.approx(second.captured - first.captured)
    assert 0 < second.trust <= 1
    assert (fused.sent, fused.absorbed, lost(fused)) == (1, 1, {})


def test_a_late_answer_rewrites_history() -> None:
    remote = Network([DOG])
    remote.gate.clear()
    fused = Fused(Network([CAT]), remote, period=100)
    answers = [fused.infer(FRAME) for _ in range(4)]
    assert [each.label for each in answers] == ["cat"] * 4
    assert all(each.remote is None and each.age is None for each in answers)
    remote.gate.set()
    fused.wait()
    assert [fused.result(frame).label for frame in range(4)] == ["dog"] * 4
    assert fused.result(3).age == pytest.approx(answers[3].captured - answers[0].captured)
    with pytest.raises(InvalidInput) as caught:
        fused.result(4)
    assert caught.value.field == "frame"


def test_an_answer_that_comes_before_the_local_one_counts_at_once() -> None:
    local = Network([CAT])
    remote = Network([DOG])
    fused = Fused(local, remote, period=1)
    fused.infer(FRAME)
    fused.wait()
    local.gate.clear()

    class Opens(Network):
        def infer(self, x: Any, **arguments: Any) -> Any:
            fused.wait()
            return super().infer(x, **arguments)

    opens = Opens([CAT])
    opens.asked.append({})
    fused._local._client = opens
    answer = fused.infer(FRAME)
    assert (answer.label, answer.remote, answer.age) == ("dog", 1, 0.0)


@pytest.mark.parametrize(
    ("remote", "cause"),
    [
        (Network([Overloaded("it is full", 1.0)]), "unanswered"),
        (Network([ZeroDivisionError()]), "unanswered"),
        (Network([DOG], labels=("cat", "dog", "horse")), "other_classes"),
        (Network([DOG], labels=(None, None, None)), "other_classes"),
        (Network([DOG], labels=("cat", "cat", "dog")), "other_classes"),
        (Network([(0.5, 0.5)], labels=("cat", "dog")), "other_classes"),
        (Network([(np.nan, 0.5, 0.5)]), "nonsense"),
        (Network([(1.0, 1.0, 1.0)]), "nonsense"),
        (Network([None]), "nonsense"),
        (Network([DelenError("the daemon answered with status 500 and no sentence")]), "nonsense"),
    ],
)
def test_a_remote_that_fails_or_says_nonsense_costs_nothing(remote: Network, cause: str) -> None:
    fused = Fused(Network([CAT]), remote, period=2)
    play(fused, 5)
    assert all(fused.result(frame).label == "cat" for frame in range(5))
    assert all(fused.result(frame).trust == 0 for frame in range(5))
    assert lost(fused) == {cause: fused.sent}
    assert fused.absorbed == 0


def test_classes_in_another_order_are_sorted_by_name() -> None:
    fused = Fused(Network([CAT]), Network([(0.0, 0.0, 1.0)], labels=("frog", "cat", "dog")))
    play(fused, 1)
    assert fused.result(0).label == "dog"


def test_a_remote_that_becomes_another_model_is_asked_for_its_classes() -> None:
    remote = Network([DOG])
    fused = Fused(Network([CAT]), remote, period=1)
    play(fused, 1)
    remote.version, remote.labels = "2", ("lion", "tiger", "bear")
    play(fused, 1)
    assert lost(fused) == {"other_classes": 1}


def test_a_remote_that_hangs_is_sent_no_more_than_so_many() -> None:
    remote = Network([DOG])
    remote.gate.clear()
    fused = Fused(Network([CAT]), remote, period=1, in_flight=2)
    answers = [fused.infer(FRAME) for _ in range(5)]
    assert [each.sent for each in answers] == [True, True, False, False, False]
    assert lost(fused) == {"busy": 3}
    remote.gate.set()
    fused.wait()
    assert fused.absorbed == 2


def test_an_answer_to_a_frame_that_is_forgotten_is_counted() -> None:
    remote = Network([DOG])
    remote.gate.clear()
    fused = Fused(Network([CAT]), remote, period=1000)
    for _ in range(301):
        fused.infer(FRAME)
    remote.gate.set()
    fused.wait()
    assert lost(fused) == {"forgotten": 1}
    assert fused.result(300).label == "cat"


def test_a_frame_without_a_local_answer_counts_for_nothing() -> None:
    local = Network([CAT, Overloaded("it is full", 1.0), CAT])
    fused = Fused(local, Network([DOG]), period=1)
    play(fused, 1)
    with pytest.raises(Overloaded):
        fused.infer(FRAME)
    fused.wait()
    assert fused.infer(FRAME).frame == 1
    fused.wait()
    assert lost(fused) == {"forgotten": 1}


def test_bounds_are_the_local_networks_and_features_are_compared() -> None:
    local, remote = Network([CAT]), Network([DOG])
    fused = Fused(local, remote)
    fused.infer(FRAME, max_latency=0.02, feature=np.array([1, 0]))
    fused.wait()
    answer = fused.infer(FRAME, feature=np.array([0, 1]))
    assert (answer.similarity, answer.trust, answer.label) == (0.0, 0.0, "cat")
    assert local.asked[0]["max_latency"] == 0.02
    assert local.asked[0]["on_infeasible"] == "best_effort"
    assert "max_latency" not in remote.asked[0]


@pytest.mark.parametrize(
    "feature",
    [
        None, np.ones(3), np.ones((2, 2)), np.array([]), "x", ["a"] * 4, 5, 4 * [np.nan],
        4 * [np.inf], 4 * [1e200],
    ],
)  # fmt: skip
def test_a_feature_that_cannot_be_compared_is_refused_and_not_kept(feature: Any) -> None:
    fused = Fused(Network([CAT]), Network([DOG]), period=100)
    fused.infer(FRAME, feature=np.ones(4))
    with pytest.raises(InvalidInput) as caught:
        fused.infer(FRAME, feature=feature)
    assert caught.value.field == "feature"
    answer = fused.infer(FRAME, feature=np.ones(4))
    assert (answer.frame, answer.similarity) == (1, 1.0)


@pytest.mark.parametrize("captured", [np.nan, np.inf, "x", None])
def test_a_time_of_capture_is_a_finite_number(captured: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        Frame(FRAME, captured)
    assert caught.value.field == "captured"


@pytest.mark.parametrize("frame", ["x", 0.5, None, -1, 1])
def test_a_frame_that_is_not_there_is_named(frame: Any) -> None:
    fused = Fused(Network([CAT]), Network([DOG]))
    fused.infer(FRAME)
    with pytest.raises(InvalidInput) as caught:
        fused.result(frame)
    assert caught.value.field == "frame"


@pytest.mark.parametrize(
    ("alpha", "expected"), [("similarity", (0.231, 0.736)), (0.5, (0.4655, 0.468))]
)
def test_the_published_rules_are_there(alpha: Any, expected: tuple[float, float]) -> None:
    fused = Fused(Network([CAT]), Network([DOG]), alpha=alpha, period=100)
    fused.infer(FRAME)
    fused.wait()
    probabilities = fused.infer(FRAME).probabilities
    assert probabilities[:2] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("option", "value"),
    [("period", 0), ("threshold", 0), ("alpha", 2.0), ("patience", -1), ("in_flight", 0)],
)
def test_a_wrong_setting_is_named(option: str, value: Any) -> None:
    make: Callable[..., Fused] = Fused
    with pytest.raises(InvalidInput) as caught:
        make(Network([CAT]), Network([DOG]), **{option: value})
    assert caught.value.field == option


@pytest.mark.asyncio
async def test_asyncio_has_the_same_rules() -> None:
    remote = Network([DOG])
    remote.gate.clear()
    fused = AsyncFused(Network([CAT]), remote, period=2, in_flight=1)
    answers = [await fused.infer(FRAME) for _ in range(4)]
    assert [(each.label, each.sent) for each in answers] == [
        ("cat", True),
        ("cat", False),
        ("cat", False),
        ("cat", False),
    ]
    assert fused.lost["busy"] == 1
    remote.gate.set()
    await fused.wait()
    assert [fused.result(frame).label for frame in range(4)] == ["dog"] * 4
    assert (fused.sent, fused.absorbed, fused.last_error) == (1, 1, None)
    with pytest.raises(InvalidInput) as caught:
        await fused.infer(FRAME, feature=np.ones(4))
    assert caught.value.field == "feature"


@pytest.mark.asyncio
async def test_what_fails_under_asyncio_is_counted_as_it_is_elsewhere() -> None:
    local = Network([CAT, Overloaded("it is full", 1.0), CAT])
    fused = AsyncFused(local, Network([DOG, ZeroDivisionError()]), period=1)
    first = await fused.infer(FRAME)
    await fused.wait()
    with pytest.raises(Overloaded):
        await fused.infer(FRAME)
    await fused.wait()
    assert (first.frame, (await fused.infer(FRAME)).frame) == (0, 1)
    await fused.wait()
    assert {cause: count for cause, count in fused.lost.items() if count} == {"unanswered": 2}
    assert isinstance(fused.last_error, ZeroDivisionError)


@pytest.mark.asyncio
async def test_whoever_gives_up_waiting_ends_no_frame_under_asyncio() -> None:
    remote = Network([DOG])
    remote.gate.clear()
    fused = AsyncFused(Network([CAT]), remote, period=1, in_flight=1)
    await fused.infer(FRAME)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(fused.wait(), 0.01)
    remote.gate.set()
    await fused.wait()
    assert (fused.absorbed, fused.result(0).label) == (1, "dog")
    assert (await fused.infer(FRAME)).sent
