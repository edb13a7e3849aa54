"""Strict reading of JSON and TOML values into typed structs: right types, no unknown key, and a
sentence that names the field."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from reprlib import Repr
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from delen.errors import InvalidInput, UnknownField

T = TypeVar("T")
Hook = Callable[[type, Any], Any]
"""Makes a JSON value into a field's own type. Raises TypeError or ValueError where it cannot."""

_KEY = re.compile(r"(?:(unknown)|missing required) field `(.*?)`")
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 60
_WORDS: dict[type[inspect.Type], str] = {
    inspect.BoolType: "true or false",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.CustomType: "a number",
    inspect.StrType: "a string",
    inspect.NoneType: "null",
    inspect.StructType: "an object",
    inspect.DictType: "an object",
    inspect.VarTupleType: "a list",
    inspect.TupleType: "a list",
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
    *,
    text: bool = False,
) -> T:
    """``document`` as a ``kind``. With ``text``, numbers and truth values may be in strings.

    InvalidInput, or UnknownField for a key that ``kind`` does not have, names the field.
    """
    try:
        return msgspec.convert(document, kind, dec_hook=hook, strict=not text)
    except msgspec.ValidationError as error:
        raise _explain(str(error), inspect.type_info(kind), document, where) from None


def _explain(problem: str, kind: inspect.Type, value: Any, where: str) -> InvalidInput:
    """The sentence for msgspec's ``problem``, which ends with the path of the value."""
    sentence, _, path = problem.partition(" - at `$")
    path = path.partition("[...")[0]
    for name, index in _STEP.findall(path):
        kind = _member(kind, name)
        value = value[name or int(index)]
    place = path.strip("`.")
    if key := _KEY.search(sentence):
        is_unknown, name = key.groups()
        if not is_unknown:
            return InvalidInput(f"{place or where} lacks {name!r}", name)
        known = ", ".join(field.encode_name for field in _structs(kind)[0].fields) or "none"
        inside = f" in {place}" if place else ""
        return UnknownField(f"unknown field {name!r}{inside}; known: {known}", name)
    wanted = " or ".join(map(_words, _options(kind)))
    return InvalidInput(
        f"{place or where} must be {wanted}, not {_SHORT.repr(value)}",
        place.rpartition(".")[2].partition("[")[0] or None,
    )


def _options(kind: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(kind, inspect.Metadata):
        yield from _options(kind.type)
    elif isinstance(kind, inspect.UnionType):
        for option in kind.types:
            yield from _options(option)
    else:
        yield kind


def _structs(kind: inspect.Type) -> list[inspect.StructType]:
    return [option for option in _options(kind) if isinstance(option, inspect.StructType)]


def _member(kind: inspect.Type, name: str) -> inspect.Type:
    """The type of the field ``name``, or of a list's items."""
    for struct in _structs(kind) if name else ():
        return next(field.type for field in struct.fields if field.encode_name == name)
    return next(
        option.item_type for option in _options(kind) if isinstance(option, inspect.VarTupleType)
    )


def _words(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.LiteralType):
        return f"one of {', '.join(map(str, kind.values))}"
    words = _WORDS.get(type(kind), "another value")
    inner = getattr(kind, "value_type", None) or getattr(kind, "item_type", None)
    if inner is not None:
        words += f" of values that are each {' or '.join(map(_words, _options(inner)))}"
    for name, limit in _LIMITS.items():
        if (value := getattr(kind, name, None)) is not None:
            words += f", {limit.format(value)}"
    return words


_MISSING: Any = object()


class Fields:
    """One mapping being read. Every method raises the error that ``fail`` makes of a sentence."""

    def __init__(self, source: object, where: str, fail: Callable[[str], Exception]) -> None:
        if not isinstance(source, Mapping):
            raise fail(f"{where} must be an object, not {type(source).__name__}")
        self._source = source
        self._where = where
        self._fail = fail
        self._read: set[str] = set()

    def _take(self, key: str, kind: type | tuple[type, ...], name: str, default: Any) -> Any:
        self._read.add(key)
        value = self._source.get(key, _MISSING)
        if value is _MISSING:
            if default is _MISSING:
                raise self._fail(f"{self._where} lacks {key!r} ({name})")
            return default
        if value is None and default is None:
            return None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self._fail(f"{self._where}: {key!r} must be {name}, not {value!r}")
        return value

    def text(self, key: str, default: Any = _MISSING) -> Any:
        return self._take(key, str, "a string", default)

    def integer(self, key: str, default: Any = _MISSING) -> Any:
        return self._take(key, int, "a whole number", default)

    def number(self, key: str, default: Any = _MISSING) -> Any:
        value = self._take(key, (int, float), "a number", default)
        if value is None:
            return None
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self._fail(f"{self._where}: {key!r} must be a finite number, not {number}")
        return number

    def boolean(self, key: str, default: Any = _MISSING) -> Any:
        return self._take(key, bool, "true or false", default)

    def array(self, key: str, default: Any = _MISSING) -> Any:
        return self._take(key, list, "a list", default)

    def child(self, key: str) -> Fields:
        return Fields(
            self._take(key, Mapping, "an object", _MISSING), f"{self._where}.{key}", self._fail
        )

    def mapping(self, key: str, default: Any = _MISSING) -> Any:
        """The object at ``key`` as it is, for free-form contents."""
        return self._take(key, Mapping, "an object", default)

    def children(self, key: str) -> list[Fields]:
        """The objects in the list at ``key``, each to be read strictly."""
        return [
            Fields(item, f"{self._where}.{key}[{index}]", self._fail)
            for index, item in enumerate(self.array(key))
        ]

    def finish(self) -> None:
        """Fail if a key was not read: it is unknown."""
        unknown = sorted(set(map(str, self._source)) - self._read)
        if unknown:
            known = ", ".join(sorted(self._read))
            raise self._fail(f"{self._where} has the unknown key {unknown[0]!r}; known: {known}")
