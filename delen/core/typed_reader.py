"""Strict reading of JSON and TOML values into typed structs: right types, no unknown key, and a
sentence that names the field."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from reprlib import Repr
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from delen.errors import InvalidInput, UnknownField

T = TypeVar("T")
Hook = Callable[[type, Any], Any]
"""Makes a JSON value into a field's own type. Raises TypeError or ValueError where it cannot."""
Fail = Callable[[str], Exception]

_KEY = re.compile(r"(?:(unknown)|missing required) field `(.*?)`")
_STEP = re.compile(r"\.(\w+)|\[(\d+|\.\.\.)\]")
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 60
_CONSTANTS: dict[object, str] = {None: "null", True: "true", False: "false"}
_WORDS: dict[type[inspect.Type], str] = {
    inspect.BoolType: "true or false",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.CustomType: "a number",
    inspect.StrType: "a string",
    inspect.NoneType: "null",
    inspect.StructType: "an object",
    inspect.DataclassType: "an object",
    inspect.DictType: "an object",
    inspect.VarTupleType: "a list",
}
_LIMITS = {
    "gt": "above {:g}",
    "ge": "at least {:g}",
    "lt": "below {:g}",
    "le": "at most {:g}",
    "min_length": "at least {} long",
    "max_length": "at most {} long",
    "pattern": "like {}",
}


def read(
    kind: type[T],
    document: object,
    where: str = "the body",
    hook: Hook | None = None,
) -> T:
    """``document`` as a ``kind``. InvalidInput, or UnknownField for a key that ``kind`` does not
    have, names the field."""
    try:
        return msgspec.convert(document, kind, dec_hook=hook)
    except msgspec.ValidationError as error:
        raise _explain(str(error), kind, document, where, hook) from None


def read_file(kind: type[T], document: object, where: str, fail: Fail) -> T:
    """``document`` as a ``kind`` of dataclasses, and with no other keys. Raises what ``fail``
    makes of a sentence."""
    try:
        _refuse_unknown(inspect.type_info(kind), document, "")
        return read(kind, document, where)
    except InvalidInput as error:
        raise fail(str(error)) from None


def _refuse_unknown(kind: inspect.Type, value: Any, place: str) -> None:
    """UnknownField for a key in ``value`` that no dataclass in ``kind`` has. Other misfits pass."""
    for option in options(kind):
        if isinstance(option, inspect.DataclassType) and isinstance(value, Mapping):
            known = {field.encode_name: field.type for field in option.fields}
            for name, each in value.items():
                if name not in known:
                    raise _unknown(name, known, place)
                _refuse_unknown(known[name], each, f"{place}.{name}")
        elif isinstance(option, inspect.VarTupleType) and isinstance(value, list):
            for index, each in enumerate(value):
                _refuse_unknown(option.item_type, each, f"{place}[{index}]")
        elif isinstance(option, inspect.DictType) and isinstance(value, Mapping):
            for name, each in value.items():
                _refuse_unknown(option.value_type, each, f"{place}[{name!r}]")


def _unknown(name: str, known: Iterable[str], place: str) -> UnknownField:
    inside = f" in {place.strip('.')}" if place else ""
    return UnknownField(
        f"unknown field {name!r}{inside}; known: {', '.join(known) or 'none'}", name
    )


def _explain(problem: str, of: type, document: Any, where: str, hook: Hook | None) -> InvalidInput:
    """The sentence for msgspec's ``problem``, which ends with the path of the value."""
    sentence, _, path = problem.partition(" - at `$")
    kind, value = inspect.type_info(of), document
    inner, place, keys = None, "", list[Any]()

    def is_wrong(entries: Mapping[str, Any]) -> bool:
        """Whether the same is wrong with none but these ``entries`` of ``value``."""
        try:
            msgspec.convert(_with(document, keys, entries), of, dec_hook=hook)
        except msgspec.ValidationError as error:
            return str(error) == problem
        return False

    for name, index in _STEP.findall(path):
        kind = _member(kind, name, index)
        if name:
            key, inner, place = name, name, f"{place}.{name}".strip(".")
        else:
            key = _wrong_key(value, is_wrong) if index == "..." else int(index)
            place += f"[{shown(key)}]"
        keys.append(key)
        value = value[key]
    if key := _KEY.search(sentence):
        is_unknown, name = key.groups()
        if is_unknown:
            return _unknown(name, [field.encode_name for field in _fields(kind)], place)
        return InvalidInput(f"{place or where} lacks {name!r}", name)
    wanted = " or ".join(map(_words, options(kind)))
    return InvalidInput(f"{place or where} must be {wanted}, not {shown(value)}", inner)


def shown(value: object) -> str:
    """``value`` as a sentence has it."""
    is_constant = value is None or isinstance(value, bool)
    return _CONSTANTS[value] if is_constant else _SHORT.repr(value)


def _wrong_key(value: Mapping[str, Any], is_wrong: Callable[[Mapping[str, Any]], bool]) -> str:
    """The first key whose value is wrong, which msgspec does not say."""
    keys = list(value)

    def is_among_first(last: int) -> bool:
        return is_wrong(dict(islice(value.items(), last + 1)))

    return keys[bisect_left(range(len(keys) - 1), True, key=is_among_first)]


def _with(document: Any, keys: Sequence[Any], value: object) -> Any:
    """``document`` with ``value`` at the place to which ``keys`` lead."""
    if not keys:
        return value
    changed = document.copy()
    changed[keys[0]] = _with(document[keys[0]], keys[1:], value)
    return changed


def options(kind: inspect.Type) -> Iterator[inspect.Type]:
    """The types of which a value may have any."""
    if isinstance(kind, inspect.Metadata):
        yield from options(kind.type)
    elif isinstance(kind, inspect.UnionType):
        for option in kind.types:
            yield from options(option)
    else:
        yield kind


def _fields(kind: inspect.Type) -> Iterator[inspect.Field]:
    for option in options(kind):
        if isinstance(option, (inspect.StructType, inspect.DataclassType)):
            yield from option.fields


def _member(kind: inspect.Type, name: str, index: str) -> inspect.Type:
    """The type of the field ``name``; without a name, of a list's value at ``index``, or an
    object's values."""
    if name:
        return next(field.type for field in _fields(kind) if field.encode_name == name)
    for option in options(kind):
        if isinstance(option, inspect.VarTupleType):
            return option.item_type
        if isinstance(option, inspect.TupleType):
            return option.item_types[int(index)]
        if isinstance(option, inspect.DictType):
            return option.value_type
    raise TypeError(f"{kind} has no values")


def _words(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.LiteralType):
        return f"one of {', '.join(map(str, kind.values))}"
    if isinstance(kind, inspect.TupleType):
        return f"a list of {len(kind.item_types)} values"
    words = _WORDS.get(type(kind), "another value")
    for name, limit in _LIMITS.items():
        if (value := getattr(kind, name, None)) is not None:
            words += f", {limit.format(value)}"
    return words
