from __future__ import annotations

from dataclasses import replace

import pytest

from delen.errors import DelenError, ModelNotFound
from delen.replay.served import Served, asked_of, default_of
from delen.simulate.trace import Arrival, Trace


def test_a_model_is_read_from_what_the_daemon_lists(model: Served) -> None:
    document = {
        "name": "m",
        "state": "ready",
        "input": {"dtype": "uint8", "shape": [2, 2], "image": None},
        "classes": 3,
        "labels": ["cat", "dog", "7"],
        "exits": [{"exit": n} for n in range(4)],
    }
    assert Served.from_json(document) == model
    assert Served.from_json({**document, "labels": None}).labels is None


def test_only_what_the_trace_asks_has_to_be_ready(model: Served) -> None:
    loading = replace(model, name="n", state="loading")
    trace = Trace((Arrival(0.0), Arrival(1.0, model="m")))
    assert asked_of(trace, [model, loading], "m") == {"m": model}
    with pytest.raises(DelenError, match="'n' is loading; load it with: delen models --load n"):
        asked_of(trace, [model, loading], "n")
    with pytest.raises(ModelNotFound, match="'x'; served: m, n"):
        asked_of(Trace((Arrival(0.0, model="x"),)), [model, loading], "m")


def test_the_default_model_is_the_one_marked() -> None:
    listed = [{"name": "a", "default": False}, {"name": "b", "default": True}]
    assert default_of(listed) == "b"
    with pytest.raises(ModelNotFound):
        default_of(listed[:1])
