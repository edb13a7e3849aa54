"""Numbers in texts, as JSON and people write them."""

from __future__ import annotations


def read_number(text: str) -> float:
    """The number in ``text``. ValueError where there is none, and for what Python alone takes for
    one: an underscore in it, or digits of another script."""
    return float(_plain(text))


def read_whole(text: str) -> int:
    """As ``read_number``, of a whole number."""
    return int(_plain(text))


def _plain(text: str) -> str:
    if not text.isascii() or "_" in text:
        raise ValueError(f"{text!r} is not a number in plain digits")
    return text
