from __future__ import annotations

from typing import Any

import msgspec
import pytest

from delen.core.json_words import in_json_words


class Tensor(msgspec.Struct):
    name: str
    shape: list[int] = []
    parameters: dict[str, bool | float | str] = {}
    size: int | None = None


@pytest.mark.parametrize(
    ("raw", "kind", "sentence"),
    [
        ("5", Tensor, "it must be an object, not a whole number"),
        ("null", Tensor, "it must be an object, not null"),
        ("[null]", list[float], "[0] must be a number, not null"),
        ('{"name": 5}', Tensor, "name must be a string, not a whole number"),
        ('[{"name": true}]', list[Tensor], "[0].name must be a string, not true or false"),
        ('{"name": "a", "shape": "b"}', Tensor, "shape must be a list, not a string"),
        ('{"name": "a", "size": []}', Tensor, "size must be a whole number or null, not a list"),
        (
            '{"name": "a", "parameters": {"b": null}}',
            Tensor,
            "parameters[...] must be true or false or a number or a string, not null",
        ),
        ("{}", Tensor, "Object missing required field `name`"),
        ("{", Tensor, "Input data was truncated"),
    ],
)
def test_types_are_called_as_json_calls_them(raw: str, kind: Any, sentence: str) -> None:
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode(raw, type=kind)
    assert in_json_words(caught.value) == sentence
