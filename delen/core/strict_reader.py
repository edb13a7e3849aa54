"""Strict reading of nested mappings (JSON, TOML): right types, and no key left unread."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from delen.core.typed_reader import shown

_MISSING: Any = object()


class Fields:
    """One mapping being read. Every method raises the error that ``fail`` makes of a sentence."""

    def __init__(self, source: object, where: str, fail: Callable[[str], Exception]) -> None:
        if not isinstance(source, Mapping):
            raise fail(f"{where} must be an object, not {shown(source)}")
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
            raise self._fail(f"{self._where}: {key!r} must be {name}, not {shown(value)}")
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
