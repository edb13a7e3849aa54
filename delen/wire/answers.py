"""Answers, plans and what became of labels."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import field

from delen.core.bounds import Encoding
from delen.core.guarantee import Source
from delen.core.plan import LimitedBy
from delen.core.result import EnergyKind, Reason
from delen.core.variant import Size
from delen.wire.message import Message, Milli, Price, about

SizeField = Annotated[Size | None, about("height, width; of a model that has several input sizes")]


class Prediction(Message, frozen=True):
    index: int
    label: str | None
    probability: float


class Latency(Message, frozen=True):
    """From the request's arrival to the answer's leaving; ``queue`` is waiting in it."""

    bound: Milli | None
    value: Milli
    queue: Milli
    predicted: Milli
    met: bool | None


class Accuracy(Message, frozen=True, omit_defaults=True):
    """``expected`` is of answers like this one, ``overall`` of all requests with this plan."""

    bound: float | None
    expected: float | None
    overall: float | None
    guarantee: float | None
    met: bool | None
    unguaranteed: Annotated[str | None, about("why no floor is guaranteed")] = None


class Energy(Message, frozen=True):
    """Dynamic energy of the request; ``kind`` says how ``value`` is known."""

    bound: Milli | None
    value: Milli | None
    predicted: Milli | None
    kind: EnergyKind
    source: str | None
    scope: str | None
    met: bool | None


class Part(Message, frozen=True):
    """What one node took of a job that ran on several, or the link between two."""

    node: str
    exits: Annotated[tuple[int, ...], about("those that it reached there; none on a link")]
    latency: Milli = field(name="latency_ms")
    energy: Annotated[Milli | None, about("null: unknown, or of a link")] = field(name="energy_mj")


class Receipt(Message, frozen=True, omit_defaults=True):
    """Bounds against outcomes."""

    met: Annotated[bool, about("whether every bound that was set was kept")]
    latency: Latency = field(name="latency_ms")
    accuracy: Accuracy
    energy: Energy = field(name="energy_mj")
    size: SizeField = None
    receiving: Annotated[
        Milli | None, about("from the request's first byte to its last, which the latency includes")
    ] = field(name="receiving_ms", default=None)
    parts: Annotated[
        tuple[Part, ...], about("of a job on several nodes; latency and energy are their sums")
    ] = ()


class Suspended(Message, frozen=True):
    """What another node needs to go on after ``exit``, at ``POST /v1/models/{model}/resume``."""

    exit: int
    bundle: Annotated[str, about("SHA-256 of what ran until there")]
    size: SizeField
    encoding: Encoding
    threshold: Annotated[
        float | None, about("confidence at which it would have stopped; null: at none")
    ]
    confidence: float
    features: Annotated[bytes, about("in base64")]


class Result(Message, frozen=True, omit_defaults=True):
    """The answer to one input."""

    model: str
    version: str
    request_id: str
    tenant: str
    stream: str | None
    predictions: tuple[Prediction, ...]
    exit: int
    exits: int
    reason: Reason
    receipt: Receipt
    probabilities: Annotated[
        np.ndarray | None, about("of all classes, where they were asked for")
    ] = None
    size: SizeField = None
    suspended: Annotated[Suspended | None, about("where the reason is that")] = None


class Results(Message, frozen=True):
    """The answers to a batch, in its order."""

    results: tuple[Result, ...]


class SettledRequest(Message, frozen=True):
    """An answered request as it is known by now."""

    request_id: str
    model: str
    tenant: str
    exit: int
    reason: Reason
    settled: Annotated[bool, about("whether the energy is final")]
    receipt: Receipt


class Nearest(Message, frozen=True):
    """Bounds near refused ones that can be kept; null is no limit."""

    max_latency: Milli | None = field(name="max_latency_ms", default=None)
    min_accuracy: float | None = None
    max_energy: Milli | None = field(name="max_energy_mj", default=None)


class OperatingPoint(Message, frozen=True, omit_defaults=True):
    """One exit as a place to stop."""

    exit: int
    accuracy: float
    latency: Milli = field(name="latency_ms")
    energy: Milli | None = field(name="energy_mj")
    dominated: Annotated[
        bool,
        about("whether an earlier exit, or one that takes no longer at another size, is as good"),
    ]
    size: SizeField = None


class Plan(Message, frozen=True, omit_defaults=True):
    """What bounds would buy now; where they are not feasible, the best effort."""

    model: str
    feasible: bool
    problem: str | None
    nearest: Nearest | None
    exit: int
    threshold: float | None
    limited_by: LimitedBy
    latency: Milli = field(name="latency_ms")
    energy: Milli | None = field(name="energy_mj")
    expected_energy: Milli | None = field(name="expected_energy_mj")
    accuracy: float | None
    guarantee: float | None
    price: Price = field(name="price_per_j")
    points: tuple[OperatingPoint, ...] = field(name="pareto")
    unguaranteed: Annotated[str | None, about("why no floor is guaranteed")] = None
    constraint: Annotated[
        str | None, about("the limit on energy that would refuse this request now")
    ] = None
    retry_after: Annotated[float | None, about("seconds after which it may not")] = field(
        name="retry_after_s", default=None
    )
    size: SizeField = None


class Guarantee(Message, frozen=True, omit_defaults=True):
    """Evidence against what was promised of a model since it was loaded."""

    holds: bool
    source: Source | None
    samples: int
    errors: int
    promised: float | None
    evidence: float
    delta: float
    unguaranteed: Annotated[str | None, about("why it does not hold")] = None


class Feedback(Message, frozen=True):
    """What became of posted labels."""

    accepted: int
    wrong: int
    repeated: int
    unknown: tuple[str, ...]
    guarantee: Guarantee


class SharedMemory(Message, frozen=True):
    """What the connection that asks shares with the daemon."""

    bytes: Annotated[int, about("how much of it a request may name; 0 for none")]
