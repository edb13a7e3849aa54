"""What a sentence calls a value of a type that it does not want."""

from __future__ import annotations


def kind_of(value: object) -> str:
    """The type of ``value``, with its article."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeioAEIO' else 'a'} {name}"
