from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta, Struct

from delen.core.typed_reader import read, read_file
from delen.errors import ConfigError, InvalidInput, UnknownField


class Wheel(Struct, forbid_unknown_fields=True):
    radius: Annotated[float, Meta(gt=0)]
    spokes: int | None = None


class Cart(Struct, forbid_unknown_fields=True):
    wheels: tuple[Wheel, ...]
    colour: Literal["red", "blue"] = "red"
    load: dict[str, int] = {}
    is_full: bool = False


@pytest.mark.parametrize(
    ("document", "field", "says"),
    [
        ([], None, "the cart must be an object, not []"),
        ({}, "wheels", "the cart lacks 'wheels'"),
        ({"wheels": 4}, "wheels", "wheels must be a list, not 4"),
        ({"wheels": [{"radius": 1}, {}]}, "radius", "wheels[1] lacks 'radius'"),
        ({"wheels": [{"radius": "1"}]}, "radius", "wheels[0].radius must be a number, above 0"),
        ({"wheels": [{"radius": 0}]}, "radius", "wheels[0].radius must be a number, above 0"),
        (
            {"wheels": [{"radius": 1, "spokes": 2.5}]},
            "spokes",
            "wheels[0].spokes must be a whole number or null, not 2.5",
        ),
        ({"wheels": [], "colour": "green"}, "colour", "one of blue, red, not 'green'"),
        (
            {"wheels": [], "load": {"oats": 1, "hay": "much", "corn": "some", "rye": 2}},
            "load",
            "load['hay'] must be a whole number, not 'much'",
        ),
        ({"wheels": [], "is_full": 1}, "is_full", "is_full must be true or false, not 1"),
        ({"wheels": [{"radius": None}]}, "radius", "must be a number, above 0, not null"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(
    document: Any, field: str | None, says: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(Cart, document, "the cart")
    assert says in str(caught.value)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("document", "place"),
    [({"wheels": [], "seats": 1}, "known: wheels, colour"), ({"wheels": [{"seats": 1}]}, "radius")],
)
def test_an_unknown_field_is_named_with_those_that_are_known(document: Any, place: str) -> None:
    with pytest.raises(UnknownField, match=place) as caught:
        read(Cart, document)
    assert caught.value.field == "seats"


def test_a_long_value_is_shown_in_part() -> None:
    with pytest.raises(InvalidInput) as caught:
        read(Cart, {"wheels": "x" * 10_000})
    assert len(str(caught.value)) < 200


@dataclass(frozen=True)
class Part:
    size: int


@dataclass(frozen=True)
class Machine:
    parts: dict[str, Part]
    spare: tuple[Part, ...] = ()


def test_a_file_is_read_into_dataclasses() -> None:
    document = {"parts": {"axle": {"size": 2}}, "spare": [{"size": 3}]}
    read_in = read_file(Machine, document, "the machine", ConfigError)
    assert read_in == Machine({"axle": Part(2)}, (Part(3),))


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"parts": {}, "colour": 1}, "unknown field 'colour'; known: parts, spare"),
        ({"parts": {"axle": {"size": 2, "x": 1}}}, "unknown field 'x' in parts['axle']"),
        ({"parts": {}, "spare": [{"size": 2, "x": 1}]}, "unknown field 'x' in spare[0]"),
        ({"parts": {"axle": {"size": "2"}}}, "parts['axle'].size must be a whole number"),
        ([], "the machine must be an object"),
    ],
)
def test_a_wrong_file_is_refused_with_the_files_own_error(document: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_file(Machine, document, "the machine", ConfigError)
    assert says in str(caught.value)
