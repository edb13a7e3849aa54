"""What msgspec finds wrong in JSON, in the words of JSON instead of Python's."""

from __future__ import annotations

import re

_TYPES = re.compile(r"Expected `([^`]*)`, got `([^`]*)`(?: - at `\$\.?([^`]*)`)?")
_WORDS = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}


def in_json_words(problem: Exception) -> str:
    """The sentence of ``problem``; where a value is of a wrong type, with its place first."""
    found = _TYPES.fullmatch(str(problem))
    if found is None:
        return str(problem)
    wanted, given, place = found.groups()
    right = " or ".join(_WORDS.get(each, each) for each in wanted.split(" | "))
    return f"{place or 'it'} must be {right}, not {_WORDS.get(given, given)}"
