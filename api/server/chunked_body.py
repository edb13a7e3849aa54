"""The body of a request that comes in chunks (RFC 9112, section 7.1)."""

from __future__ import annotations

import re
from typing import Protocol

_LONGEST_LINE = 4096
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")


class _File(Protocol):
    def read(self, size: int) -> bytes: ...
    def readline(self, size: int) -> bytes: ...


class ChunkedBody:
    """Decodes chunks as they are asked for, and never holds more than that. The server's own
    reader takes in a whole chunk, however large, before anyone can refuse it."""

    def __init__(self, file: _File) -> None:
        self._file = file
        self._left = 0
        self.ended = False

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer at the end. Raises ValueError where the chunks are
        damaged or stop before their end."""
        pieces: list[bytes] = []
        while size > 0 and not self.ended:
            if not self._left:
                self._begin_chunk()
                continue
            piece = self._file.read(min(size, self._left))
            if not piece:
                raise ValueError("the connection ended inside a chunk")
            pieces.append(piece)
            size -= len(piece)
            self._left -= len(piece)
            if not self._left and self._line():
                raise ValueError("a chunk is longer than it says")
        return b"".join(pieces)

    def _begin_chunk(self) -> None:
        size = self._line().partition(b";")[0].strip()
        if not _SIZE.fullmatch(size):
            raise ValueError(f"{size[:20]!r} is not the size of a chunk")
        self._left = int(size, 16)
        if not self._left:
            while self._line():
                """What may follow the last chunk is passed over."""
            self.ended = True

    def _line(self) -> bytes:
        line = self._file.readline(_LONGEST_LINE)
        if not line.endswith(b"\r\n"):
            raise ValueError("a line of the chunks is cut off or too long")
        return line[:-2]
