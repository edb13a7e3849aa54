"""What the SDK says of a job that another node has begun."""

from __future__ import annotations

import time

import pytest

from delen.core.handover import LINK, Part, Suspended
from delen.errors import InvalidInput
from delen.sdk.resume import with_link

BEGUN = Part("board", (0, 1), 0.01, 0.002)


def test_the_link_has_what_passed_beyond_the_parts() -> None:
    *parts, link = with_link((BEGUN,), time.monotonic() - 1.0)
    assert parts == [BEGUN]
    assert link.node == LINK
    assert link.latency == pytest.approx(0.99, abs=0.5)
    assert with_link((BEGUN,), None) == (BEGUN,)


def test_a_job_that_begins_later_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"since .*time\.monotonic\(\)") as caught:
        with_link((BEGUN,), time.time() + 1e9)
    assert caught.value.field == "since"


def test_features_are_not_printed() -> None:
    suspended = Suspended(1, "b", None, "fp16", None, 0.5, b"\x01\x02" * 20_000)
    assert len(repr(suspended)) < 200
