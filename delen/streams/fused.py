"""``delen.Fused``: a small network here answers in time, a large one elsewhere corrects it."""

from __future__ import annotations

import threading
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
from delen.sdk.client import Client
from delen.streams.frames import Frame
from delen.streams.place import Answerer, Classes, Place, aligned
from policies.client.fusion import (
    KEEP,
    PERIOD,
    THRESHOLD,
    Fusion,
    SendFilter,
    is_distribution,
)
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


@dataclass(slots=True, eq=False)
class _Sending:
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


class Fused:
    """``local`` answers every frame, and ``remote`` some, whose answers are fused when they come.

    Both are clients or engines whose models know the same classes, in whatever order. ``infer``
    returns when the local answer is there; nothing that ``remote`` does delays it. Every
    ``period``-th frame is sent, and one whose similarity rose by ``threshold``. A late remote
    answer corrects the frames since: ``result`` says what is believed of one by now.

    ``alpha`` is the rule: None is Dělen's, ``"similarity"`` Clownfish's, a fraction the fixed
    weight of what was believed before, Clownfish's baseline. At most ``in_flight`` frames are under
    way to ``remote``, each for ``patience`` seconds. ``lost`` counts by cause what was not fused.
    """

    def __init__(
        self,
        local: Answerer,
        remote: Answerer,
        *,
        period: int = PERIOD,
        threshold: float = THRESHOLD,
        alpha: float | Literal["similarity"] | None = None,
        patience: float = PATIENCE,
        in_flight: int = 2,
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
        self._patience = check_cap(patience, "patience")
        self._free = threading.Semaphore(check_integer(in_flight, "in_flight", 1, None))
        self._local = Place(local, "local")
        self._remote = Place(remote, "remote")
        self._is_client = isinstance(remote, Client)
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._frames: deque[_Answered] = deque(maxlen=KEEP)
        self._numbers: int | None = None
        self._count = 0
        self._sent = self._absorbed = 0
        self._lost: dict[LostCause, int] = dict.fromkeys(get_args(LostCause), 0)
        self._threads: set[threading.Thread] = set()
        self.last_error: Exception | None = None

    @property
    def sent(self) -> int:
        """How many frames were sent to the remote network."""
        return self._sent

    @property
    def absorbed(self) -> int:
        """How many remote answers were fused."""
        return self._absorbed

    @property
    def lost(self) -> Mapping[LostCause, int]:
        """How many frames that were to be sent were not fused, by cause."""
        return dict(self._lost)

    def infer(
        self,
        frame: Any,
        *,
        feature: NDArray[Any] | None = None,
        max_latency: float | None = None,
        min_accuracy: float | None = None,
        max_energy: float | None = None,
    ) -> FusedResult:
        """The local answer to the next frame, fused with what is known by then.

        It keeps the bounds, or comes as near to them as it can: ``result.receipt`` says which.

        ``feature`` is a vector by which frames are compared, of the same length for every frame;
        without it the local probabilities are. Raises what the local client raises; then the frame
        counts for nothing.
        """
        with self._turn:
            vector = self._checked(feature)
            captured = time.monotonic()
            if isinstance(frame, Frame):
                frame, captured = frame.content, frame.captured
            if callable(load := getattr(frame, "load", None)):
                load()  # a PIL image cannot be decoded by two threads
            sending = self._send(frame) if self._filter.due() else None
            try:
                result = self._local.infer(
                    frame,
                    max_latency=max_latency,
                    min_accuracy=min_accuracy,
                    max_energy=max_energy,
                    on_infeasible="best_effort",
                )
            except BaseException:
                if sending is not None:
                    with self._lock:
                        sending.is_void = True
                        self._lost["forgotten"] += sending.early is not None
                raise
            probabilities = np.asarray(result.probabilities, np.float64)
            compared = vector if vector.size else probabilities
            with self._lock:
                number = self._count
                similarity = self._fusion.local(probabilities, compared).similarity
                self._numbers = vector.size
                self._count += 1
            if self._filter.settled(similarity) and sending is None:
                sending = self._send(frame)
            with self._lock:
                self._frames.append(_Answered(captured, result, sending is not None))
                if sending is not None:
                    sending.number = number
                    if sending.early is not None:
                        self._absorb(number, *sending.early)
                return self._result(number)

    def result(self, frame: int) -> FusedResult:
        """What is believed of frame number ``frame`` by now. InvalidInput where it is forgotten."""
        with self._lock:
            frame = check_integer(frame, "frame", 0, None)
            if not self._count - len(self._frames) <= frame < self._count:
                raise InvalidInput(
                    f"frame {frame} is not among the last {len(self._frames)} of {self._count}",
                    "frame",
                )
            return self._result(frame)

    def wait(self) -> None:
        """Until no frame is under way to the remote network: ``patience`` seconds at most."""
        for thread in list(self._threads):
            thread.join()

    def _result(self, number: int) -> FusedResult:
        fused = self._fusion.window(number)
        first = self._count - len(self._frames)
        answered = self._frames[number - first]
        classes = self._local.classes
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

    def _send(self, content: Any) -> _Sending | None:
        """Begin to ask the remote network, unless it is asked enough already."""
        if not self._free.acquire(blocking=False):
            self._lose("busy")
            return None
        sending = _Sending(content)
        thread = threading.Thread(
            target=self._ask, args=(sending,), name=f"delen-remote-{self._sent}", daemon=True
        )
        self._sent += 1
        self._threads.add(thread)
        thread.start()
        return sending

    def _ask(self, sending: _Sending) -> None:
        """Ask the remote network, which may fail in whatever way it likes."""
        arguments = {"timeout": self._patience} if self._is_client else {}
        try:
            result = self._remote.infer(sending.content, **arguments)
            values = np.asarray(result.probabilities, np.float64)
            with self._lock:
                self._answered(sending, self._remote.classes, values)
        except Exception as error:
            self._lose("nonsense" if type(error) is DelenError else "unanswered", error)
        finally:
            self._free.release()
            self._threads.discard(threading.current_thread())

    def _answered(self, sending: _Sending, own: Classes, values: NDArray[np.float64]) -> None:
        if sending.is_void:
            self._lost["forgotten"] += 1
        elif sending.number is None:
            sending.early = own, values
        else:
            self._absorb(sending.number, own, values)

    def _absorb(self, number: int, own: Classes, values: NDArray[np.float64]) -> None:
        wanted = self._local.classes
        if not is_distribution(values, len(own)):
            self._lost["nonsense"] += 1
        elif (probabilities := aligned(values, own, wanted)) is None:
            self._lost["other_classes"] += 1
        elif self._fusion.remote(number, probabilities):
            self._absorbed += 1
        else:
            self._lost["forgotten"] += 1

    def _lose(self, cause: LostCause, error: Exception | None = None) -> None:
        with self._lock:
            self._lost[cause] += 1
            self.last_error = error or self.last_error
