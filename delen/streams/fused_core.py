"""What ``Fused`` and ``AsyncFused`` share: settings, state, and what becomes of answers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from delen.core.bounds import check_cap, check_fraction, check_integer
from delen.core.result import Result
from delen.errors import DelenError, InvalidInput
from delen.streams.frames import Frame
from delen.streams.place import Classes, aligned
from policies.client.fusion import KEEP, Fusion, SendFilter, is_distribution
from policies.client.fusion_rules import Clownfish, FusionRule, Trust

LostCause = Literal["busy", "unanswered", "other_classes", "nonsense", "forgotten"]
"""Why a frame that was to be sent was not fused: as many as may be were under way (``busy``), there
was no answer, or one of other classes, or one that is none of a daemon or has no probabilities
(``nonsense``), or its frame is forgotten or had no local answer."""

PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class FusedResult:
    """What is believed of a frame.

    ``result`` is the local answer, and its receipt. ``probabilities`` are what it became with the
    remote answers known by then, of which ``remote`` is the newest: an earlier frame, or this one;
    ``age`` is how many seconds before this frame it was captured. ``trust`` (0 to 1) is how much it
    counts; at 0, and where ``remote`` is None, ``probabilities`` are the local ones. ``sent`` says
    whether this frame was sent.
    """

    frame: int
    captured: float
    result: Result
    probabilities: NDArray[np.float64]
    similarity: float
    sent: bool
    trust: float
    remote: int | None
    age: float | None
    label: str | None

    @property
    def index(self) -> int:
        return int(self.probabilities.argmax())

    @property
    def probability(self) -> float:
        return float(self.probabilities.max())


@dataclass(frozen=True, slots=True)
class FrameHere:
    """A frame that is to be answered here; ``vector`` is its feature, empty where it has none."""

    content: Any
    captured: float
    vector: NDArray[np.float64]


@dataclass(slots=True, eq=False)
class Sending:
    """A frame under way to the remote network. ``number`` is its own once it is answered here;
    ``early`` is what came before that."""

    content: Any
    number: int | None = None
    is_void: bool = False
    early: tuple[Classes, NDArray[np.float64]] | None = None


@dataclass(frozen=True, slots=True)
class _Answered:
    captured: float
    result: Result
    sent: bool


class FusedCore:
    """Two places without their clients: what is sent, what is believed, and what was lost.

    ``Fused`` and ``AsyncFused`` call it one at a time. A ``Sending`` that it returns is to be sent
    now, and ``ended`` to be called with what becomes of it.
    """

    def __init__(
        self,
        *,
        period: int,
        threshold: float,
        alpha: float | Literal["similarity"] | None,
        patience: float,
        in_flight: int,
    ) -> None:
        rule: FusionRule = Trust()
        if alpha == "similarity":
            rule = Clownfish()
        elif alpha is not None:
            rule = Clownfish(check_fraction(alpha, "alpha"))
        self._filter = SendFilter(
            check_integer(period, "period", 1, None), check_cap(threshold, "threshold")
        )
        self._fusion = Fusion(rule)
        self.patience = check_cap(patience, "patience")
        self._most = check_integer(in_flight, "in_flight", 1, None)
        self._under_way = 0
        self._frames: deque[_Answered] = deque(maxlen=KEEP)
        self._numbers: int | None = None
        self._count = 0
        self.sent = self.absorbed = 0
        self.lost: dict[LostCause, int] = dict.fromkeys(get_args(LostCause), 0)
        self.last_error: Exception | None = None

    def take(self, frame: Any, feature: NDArray[Any] | None) -> FrameHere:
        """The next frame; InvalidInput where its ``feature`` cannot be compared with those before
        it."""
        vector = self._checked(feature)
        captured = time.monotonic()
        if isinstance(frame, Frame):
            frame, captured = frame.content, frame.captured
        if callable(load := getattr(frame, "load", None)):
            load()  # a PIL image cannot be decoded by two threads
        return FrameHere(frame, captured, vector)

    def due(self, frame: FrameHere) -> Sending | None:
        """``frame``, if it is to be sent before it is answered here."""
        return self._send(frame) if self._filter.due() else None

    def failed(self, sending: Sending | None) -> None:
        """The frame got no answer here, and counts for nothing."""
        if sending is not None:
            sending.is_void = True
            self.lost["forgotten"] += sending.early is not None

    def answered(
        self, frame: FrameHere, result: Result, sending: Sending | None, classes: Classes
    ) -> tuple[FusedResult, Sending | None]:
        """What is believed of ``frame``, whose answer here is ``result`` of these ``classes``, and
        the frame itself where that has it sent."""
        probabilities = np.asarray(result.probabilities, np.float64)
        compared = frame.vector if frame.vector.size else probabilities
        number = self._count
        similarity = self._fusion.local(probabilities, compared).similarity
        self._numbers = frame.vector.size
        self._count += 1
        settled = None
        if self._filter.settled(similarity) and sending is None:
            sending = settled = self._send(frame)
        self._frames.append(_Answered(frame.captured, result, sending is not None))
        if sending is not None:
            sending.number = number
            if sending.early is not None:
                self._absorb(number, *sending.early, classes)
        return self._result(number, classes), settled

    def ended(
        self, sending: Sending, outcome: Result | Exception, own: Classes, classes: Classes
    ) -> None:
        """What the remote network, which knows the classes ``own``, made of a frame."""
        self._under_way -= 1
        try:
            if isinstance(outcome, Exception):
                raise outcome
            values = np.asarray(outcome.probabilities, np.float64)
            if sending.is_void:
                self.lost["forgotten"] += 1
            elif sending.number is None:
                sending.early = own, values
            else:
                self._absorb(sending.number, own, values, classes)
        except Exception as error:
            self.lost["nonsense" if type(error) is DelenError else "unanswered"] += 1
            self.last_error = error

    def result(self, frame: int, classes: Classes) -> FusedResult:
        """What is believed of frame number ``frame`` by now. InvalidInput where it is forgotten."""
        frame = check_integer(frame, "frame", 0, None)
        if not self._count - len(self._frames) <= frame < self._count:
            raise InvalidInput(
                f"frame {frame} is not among the last {len(self._frames)} of {self._count}",
                "frame",
            )
        return self._result(frame, classes)

    def _result(self, number: int, classes: Classes) -> FusedResult:
        fused = self._fusion.window(number)
        first = self._count - len(self._frames)
        answered = self._frames[number - first]
        age = None
        if fused.remote is not None and fused.remote >= first:
            age = answered.captured - self._frames[fused.remote - first].captured
        return FusedResult(
            frame=number,
            captured=answered.captured,
            result=answered.result,
            probabilities=fused.probabilities,
            similarity=fused.similarity,
            sent=answered.sent,
            trust=fused.trust,
            remote=fused.remote,
            age=age,
            label=classes[int(fused.probabilities.argmax())],
        )

    def _checked(self, feature: NDArray[Any] | None) -> NDArray[np.float64]:
        """``feature`` as a vector, an empty one for None; InvalidInput where it cannot be compared
        with those before it."""
        try:
            vector = np.asarray(() if feature is None else feature, np.float64)
            with np.errstate(all="ignore"):
                is_vector = vector.ndim == 1 and np.isfinite(vector @ vector)
        except (TypeError, ValueError):
            is_vector = False
        if not is_vector or (feature is not None and not vector.size):
            raise InvalidInput(
                f"feature is {feature!r}; it must be a vector of finite numbers", "feature"
            )
        if self._numbers not in (None, vector.size):
            raise InvalidInput(
                f"feature has {vector.size} numbers and those before had {self._numbers}; every "
                "frame must have one of the same length, or none of them any",
                "feature",
            )
        return vector

    def _send(self, frame: FrameHere) -> Sending | None:
        """None where the remote network is asked enough already."""
        if self._under_way >= self._most:
            self.lost["busy"] += 1
            return None
        self._under_way += 1
        self.sent += 1
        return Sending(frame.content)

    def _absorb(
        self, number: int, own: Classes, values: NDArray[np.float64], classes: Classes
    ) -> None:
        if not is_distribution(values, len(own)):
            self.lost["nonsense"] += 1
        elif (probabilities := aligned(values, own, classes)) is None:
            self.lost["other_classes"] += 1
        elif self._fusion.remote(number, probabilities):
            self.absorbed += 1
        else:
            self.lost["forgotten"] += 1


class FusedCounts:
    """What ``core`` has counted."""

    def __init__(self, core: FusedCore) -> None:
        self._core = core

    @property
    def sent(self) -> int:
        """How many frames were sent to the remote network."""
        return self._core.sent

    @property
    def absorbed(self) -> int:
        """How many remote answers were fused."""
        return self._core.absorbed

    @property
    def lost(self) -> Mapping[LostCause, int]:
        """How many frames that were to be sent were not fused, by cause."""
        return dict(self._core.lost)

    @property
    def last_error(self) -> Exception | None:
        """What was raised for the last frame that the remote network did not answer."""
        return self._core.last_error
