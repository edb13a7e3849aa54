from __future__ import annotations

import math
from typing import Any

import pytest

from delen.core.strict_reader import Fields
from delen.errors import ConfigError

SAMPLES: dict[str, Any] = {
    "text": "a",
    "integer": 3,
    "number": 2.5,
    "boolean": True,
    "array": [1],
    "mapping": {"a": 1},
}
FITS = {("number", "integer")}
"""A whole number is a number, too."""


def fields(source: object) -> Fields:
    return Fields(source, "the file", ConfigError)


@pytest.mark.parametrize("source", [None, [], "x", 3])
def test_what_is_no_object_is_refused(source: object) -> None:
    with pytest.raises(ConfigError, match="the file must be an object"):
        fields(source)


@pytest.mark.parametrize("method", SAMPLES)
@pytest.mark.parametrize("kind", [*SAMPLES, "null"])
def test_each_reader_takes_its_own_type_alone(method: str, kind: str) -> None:
    value = SAMPLES.get(kind)
    reader = getattr(fields({"key": value}), method)
    if kind == method or (method, kind) in FITS:
        assert reader("key") == value
    else:
        with pytest.raises(ConfigError, match="the file: 'key' must be "):
            reader("key")


@pytest.mark.parametrize("method", SAMPLES)
def test_a_missing_key_is_named_unless_there_is_a_default(method: str) -> None:
    with pytest.raises(ConfigError, match="the file lacks 'key'"):
        getattr(fields({}), method)("key")
    assert getattr(fields({}), method)("key", None) is None


@pytest.mark.parametrize("method", SAMPLES)
def test_null_is_taken_only_where_null_is_the_default(method: str) -> None:
    assert getattr(fields({"key": None}), method)("key", default=None) is None
    with pytest.raises(ConfigError):
        getattr(fields({"key": None}), method)("key", default=SAMPLES[method])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
def test_a_number_is_finite(value: float) -> None:
    with pytest.raises(ConfigError, match="'key' must be a finite number"):
        fields({"key": value}).number("key")


def test_a_number_is_a_float() -> None:
    assert type(fields({"key": 3}).number("key")) is float


def test_an_unread_key_is_refused_with_those_that_are_known() -> None:
    reading = fields({"a": 1, "b": 2, "z": 3})
    reading.integer("a")
    reading.integer("b")
    with pytest.raises(ConfigError, match=r"the file has the unknown key 'z'; known: a, b"):
        reading.finish()
    reading.integer("z")
    reading.finish()


def test_children_say_where_they_are() -> None:
    reading = fields({"one": {"x": 1}, "many": [{"y": 1}, 7]})
    with pytest.raises(ConfigError, match=r"the file\.one lacks 'z'"):
        reading.child("one").text("z")
    with pytest.raises(ConfigError, match=r"the file\.many\[1\] must be an object, not 7"):
        reading.children("many")
