"""What all messages have in common: units, and the ways from the program to JSON and back.

A message's attributes are named as in the program and in SI units. Their names in JSON say
another unit where there is one, and values are converted as they are read and written, here alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import msgspec
import numpy as np
from msgspec import UNSET, Meta, inspect

from delen.core import typed_reader
from delen.core.numbers import read_number, read_whole
from delen.errors import InvalidInput

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

_TRUTH = {"true": True, "false": False}


class _OfFloats(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, float)


class Quantity(float, metaclass=_OfFloats):
    """A number in SI units that JSON has in another, ``times`` or ``over`` which it is there.
    What is read is a plain float, what is to be written is this."""

    times: ClassVar[float] = 1.0
    over: ClassVar[float] = 1.0
    schema: ClassVar[dict[str, Any]] = {"type": "number"}


class Milli(Quantity):
    """Seconds in ms, joules in mJ."""

    times = 1e3


class Megabytes(Quantity):
    """Bytes in MB of 10^6 bytes."""

    over = 1e6


class Megabits(Quantity):
    """Bytes a second in Mbit/s."""

    times = 8.0
    over = 1e6


class Megahertz(Quantity):
    """Hertz in MHz."""

    over = 1e6


class WattHours(Quantity):
    """Joules in watt-hours."""

    over = 3600.0


class Price(Quantity):
    """Accuracy per joule, infinity as null."""

    schema: ClassVar[dict[str, Any]] = {
        "type": ["number", "null"],
        "description": "accuracy per joule; null for one without limit, which buys the least "
        "energy",
    }


class Message(msgspec.Struct, frozen=True):
    """A message that its reader takes with whatever fields a newer writer adds."""

    @classmethod
    def of(cls, source: object) -> Self:
        """The message that says what ``source``, with attributes of the same names, says."""
        try:
            return msgspec.convert(source, cls, from_attributes=True, dec_hook=_as_is)
        except msgspec.ValidationError:
            pass  # numbers of numpy, which plug-ins may give: those take the long way
        read, makers = _reader(cls)
        values = [*read(source)]
        for index, make in makers:
            if (value := values[index]) is not None and value is not UNSET:
                values[index] = make(value)
        return cls(*values)

    def to(self, kind: Callable[..., T]) -> T:
        """What this says as a ``kind``, a dataclass with attributes of the same names.
        InvalidInput names the field as it is in JSON."""
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        try:
            return msgspec.convert(  # type: ignore[no-any-return]  # of any dataclass
                {name: value for name, value in given.items() if value is not UNSET},
                kind,
                from_attributes=True,
            )
        except InvalidInput as error:
            raise error.renamed(self.written(error.field) or error.field) from None

    def written(self, attribute: str | None) -> str | None:
        """The name in JSON of ``attribute``, which may be of a message in this one."""
        names = dict(zip(self.__struct_fields__, self.__struct_encode_fields__, strict=True))
        if attribute in names:
            return names[attribute]
        inner = (getattr(self, name) for name in names)
        found = (each.written(attribute) for each in inner if isinstance(each, Message))
        return next(filter(None, found), None)


class Request(Message, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A message that asks for something, and may name nothing that is unknown."""

    @classmethod
    def read(cls, document: object, where: str = "the body") -> Self:
        """The request in a JSON ``document``. InvalidInput or UnknownField names the field."""
        return typed_reader.read(cls, document, where, _from_json)

    @classmethod
    def read_query(cls, fields: Mapping[str, str]) -> Self:
        """The same from the fields of a query string."""
        kinds = {field.encode_name: field.type for field in _struct(cls).fields}
        document = {
            name: _parsed(kinds[name], text) if name in kinds else text
            for name, text in fields.items()
        }
        return cls.read(document, "the query")

    def query(self) -> dict[str, str]:
        """What ``read_query`` reads."""
        fields: dict[str, Any] = msgspec.to_builtins(self, enc_hook=_to_json)
        return {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in fields.items()
        }


def about(description: str = "", **schema: Any) -> Meta:
    """What a field means, and JSON Schema on its range, which is checked elsewhere."""
    return Meta(description=description or None, extra_json_schema=schema or None)


def write(message: Message) -> bytes:
    """``message`` in JSON, which has null for what is neither finite nor known."""
    return _ENCODER.encode(message)


def write_all(messages: Iterable[Message]) -> bytes:
    """``messages`` as a JSON list."""
    return _ENCODER.encode(list(messages))


def read_answer(kind: type[T], raw: bytes) -> T:
    """The message in ``raw``. ValueError where it has none."""
    return msgspec.json.decode(raw, type=kind, dec_hook=_from_json)


def schema_of(kind: type) -> dict[str, Any]:
    """The JSON Schema of a field's own type."""
    if issubclass(kind, Quantity):
        return kind.schema
    return {"type": "array", "items": {"type": "number"}}


def _to_json(value: Any) -> Any:
    kind = type(value)
    if issubclass(kind, Quantity):
        return value * kind.times / kind.over
    return value.tolist()


def _as_is(kind: type, value: Any) -> Any:
    """A number of the program as a ``kind`` of Quantity, which it is in SI units already."""
    return kind(value) if issubclass(kind, Quantity) else value


def _from_json(kind: type, value: Any) -> Any:
    if not issubclass(kind, Quantity):
        return np.asarray(value, np.float32)
    if value is None and kind is Price:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError("a number is wanted")
    try:
        return value * kind.over / kind.times
    except OverflowError:
        return math.inf


def _parsed(kind: inspect.Type, text: str) -> Any:
    """``text`` as the number or truth value that ``kind`` is; ``text`` itself if it is neither."""
    kinds = {type(option) for option in typed_reader.options(kind)}
    try:
        if inspect.IntType in kinds:
            return read_whole(text)
        if kinds & {inspect.FloatType, inspect.CustomType}:
            return read_number(text)
    except ValueError:
        return text
    return _TRUTH.get(text, text) if inspect.BoolType in kinds else text


Make = Callable[[Any], Any]
_MadeField = tuple[int, Make]


@cache
def _struct(message: type[Message]) -> inspect.StructType:
    info = inspect.type_info(message)
    assert isinstance(info, inspect.StructType)
    return info


@cache
def _reader(message: type[Message]) -> tuple[Callable[[object], Sequence[Any]], list[_MadeField]]:
    """What reads the fields of ``message`` from its source, and how those are made that do not take
    their source's value as it is."""
    names = message.__struct_fields__
    read = attrgetter(*names)
    makers = enumerate(_maker(field.type) for field in _struct(message).fields)
    made = [(index, make) for index, make in makers if make is not None]
    return read if len(names) > 1 else lambda source: (read(source),), made


def _maker(kind: inspect.Type) -> Make | None:
    if isinstance(kind, inspect.Metadata):
        return _maker(kind.type)
    if isinstance(kind, inspect.UnionType):
        return next(filter(None, map(_maker, kind.types)), None)
    if isinstance(kind, inspect.StructType):
        return cast("type[Message]", kind.cls).of
    if isinstance(kind, inspect.CustomType) and issubclass(kind.cls, Quantity):
        return kind.cls
    if isinstance(kind, inspect.VarTupleType) and (one := _maker(kind.item_type)):
        return lambda items: tuple(map(one, items))
    return None


_ENCODER = msgspec.json.Encoder(enc_hook=_to_json)
