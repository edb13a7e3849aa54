"""The body of a request that says how long it is."""

from __future__ import annotations

from typing import Protocol


class _File(Protocol):
    def read(self, size: int) -> bytes: ...


class SizedBody:
    """The next ``left`` bytes of a file. The server's own, which it knows by its ``remaining``, is
    read to its end before an answer leaves, wanted or not."""

    def __init__(self, file: _File, left: int) -> None:
        self._file = file
        self.left = left

    @property
    def ended(self) -> bool:
        return self.left <= 0

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer at the end or where the connection ended."""
        piece = self._file.read(min(size, self.left))
        self.left -= len(piece)
        return piece
