"""What is sent to a node that goes on with a job which another one has begun."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

from delen.core.bounds import Bounds, Options, check_finite
from delen.core.handover import LINK, Part, Suspended
from delen.core.result import Result
from delen.core.variant import format_size
from delen.errors import InvalidInput
from delen.wire import answers
from delen.wire.message import write
from delen.wire.requests import BUNDLE, PARTS, InferFields, ResumeFields


def bounds_of(result: Result) -> Bounds:
    """The bounds that ``result`` was asked for under."""
    receipt = result.receipt
    return Bounds(
        max_latency=receipt.latency.bound,
        min_accuracy=receipt.accuracy.bound,
        max_energy=receipt.energy.bound,
    )


def with_link(parts: tuple[Part, ...], since: float | None) -> tuple[Part, ...]:
    """``parts`` of a job that began at ``since`` (``time.monotonic``), with what has passed beyond
    them as the link's; None where nobody knows."""
    if since is None:
        return parts
    passed = time.monotonic() - check_finite(since, "since")
    if passed < 0:
        raise InvalidInput(
            f"since is {-passed:.3g} s ahead; it must be time.monotonic() when the job began",
            "since",
        )
    left = max(0.0, passed - sum(part.latency for part in parts))
    return (*parts, Part(LINK, (), left, None))


def resume_query(suspended: Suspended, bounds: Bounds, options: Options) -> Mapping[str, str]:
    size = suspended.size
    query = ResumeFields(
        exit=suspended.exit,
        encoding=suspended.encoding,
        size=None if size is None else format_size(size),
        threshold=suspended.threshold,
        confidence=suspended.confidence,
    )
    return {**InferFields.asking(bounds, options).query(), **query.query()}


def resume_headers(suspended: Suspended, parts: tuple[Part, ...]) -> tuple[tuple[str, str], ...]:
    written = [json.loads(write(answers.Part.of(part))) for part in parts]
    return (BUNDLE, suspended.bundle), (PARTS, json.dumps(written))
