"""HTTP/1.1 as the clients speak it: one request to bytes, and bytes to its answer. No sockets."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from math import inf
from typing import Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from delen.core.bounds import check_cap
from delen.errors import ConfigError, DelenError, InvalidInput, TooLarge
from delen.sdk.address import unix_path
from delen.sdk.memory import Sharing

Transport = Literal["shm", "unix", "tcp"]
CA_VARIABLE = "DELEN_CA_FILE"
Pieces: TypeAlias = tuple[bytes | memoryview, ...]
"""A body: what is sent one after the other."""

_END_OF_HEAD = b"\r\n\r\n"
_LARGEST_HEAD = 65_536
_LONGEST_LINE = 1024
_LONGEST_TIMEOUT = 1e6
"""Seconds. The kernel counts milliseconds in 31 bits."""


class Unconnected(Exception):
    """There is no connection to the daemon."""


class Unanswered(Exception):
    """The connection ended before the answer was whole. ``has_begun``: some of it had come."""

    def __init__(self, why: str, has_begun: bool = True) -> None:
        super().__init__(why)
        self.has_begun = has_begun


class Late(Exception):
    """There was no whole answer in time."""


class Answer(NamedTuple):
    status: int
    body: bytes


class Request(NamedTuple):
    method: str
    target: str
    body: Pieces = ()
    media_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return sum(map(len, self.body))


def check_timeout(timeout: object) -> float:
    """``timeout`` as a float; InvalidInput unless a call can wait so many seconds."""
    seconds = check_cap(timeout, "timeout")
    if seconds > _LONGEST_TIMEOUT:
        raise InvalidInput(
            f"timeout is {seconds:g}; it must be at most {_LONGEST_TIMEOUT:.0f} seconds", "timeout"
        )
    return seconds


@dataclass(frozen=True)
class Endpoint:
    """Where requests go, and what all of them carry. ``socket`` is the path of a Unix socket, and
    ``tls`` set for https. All connections share it: where a thread makes it while another forks, a
    child that made its own would wait for a lock of OpenSSL for ever. ``sharing`` is whether the
    daemon at a Unix socket takes memory."""

    url: str
    socket: str | None
    host: str
    port: int
    tls: ssl.SSLContext | None
    prefix: str
    headers: str
    sharing: Sharing = field(default_factory=Sharing, compare=False)

    @classmethod
    def of(cls, url: str, token: str | None, ca_file: str | None = None) -> Endpoint:
        """InvalidInput where ``url`` or ``token`` can be none, and for a ``ca_file`` without https.
        https trusts the certificates in ``ca_file``, by default those that ``DELEN_CA_FILE`` names,
        else the system's; ConfigError where that file cannot be read."""
        path = unix_path(url)
        try:
            parts = urlsplit("http://delen" if path else url)
            port, is_right = parts.port, parts.scheme in ("http", "https") and parts.hostname
        except ValueError:
            is_right = None
        if not is_right or "@" in parts.netloc or parts.query or parts.fragment:
            raise InvalidInput(
                f"url is {url!r}; it must be http://HOST:PORT, https://HOST:PORT or unix:///PATH",
                "url",
            )
        headers = f"Host: {parts.netloc}\r\n"
        if token is not None:
            if not can_be_token(token):
                raise InvalidInput(
                    "token must be a text of characters that a header can have", "token"
                )
            headers += f"Authorization: Bearer {token}\r\n"
        is_secure = parts.scheme == "https"
        _check_path(ca_file)
        if ca_file is not None and not is_secure:
            raise InvalidInput(
                f"ca_file says which certificates https:// trusts, and {url} has none: leave it "
                "out, or ask an https:// address",
                "ca_file",
            )
        return cls(
            url=url,
            socket=path,
            host=parts.hostname or "",
            port=port or (443 if is_secure else 80),
            tls=_trusting(ca_file) if is_secure else None,
            prefix=parts.path.rstrip("/"),
            headers=headers,
        )

    def head(self, request: Request, in_memory: bool = False) -> bytes:
        """What stands before the body of ``request``; all that is sent where that is in memory."""
        kind = "" if request.media_type is None else f"Content-Type: {request.media_type}\r\n"
        headers = self.headers + "".join([f"{name}: {text}\r\n" for name, text in request.headers])
        size = request.size
        if in_memory:
            kind, size = f"{kind}Delen-Shared-Memory: 0+{size}\r\n", 0
        return (
            f"{request.method} {self.prefix}{request.target} HTTP/1.1\r\n{headers}{kind}"
            f"Content-Length: {size}\r\n\r\n"
        ).encode("ascii")


def can_be_token(text: object) -> bool:
    """Whether a header can have ``text``."""
    return isinstance(text, str) and bool(text) and text.isascii() and text.isprintable()


def of_https(url: str, ca_file: str | None) -> str | None:
    """``ca_file`` where ``url`` is https, else None: the nodes of a hub differ."""
    _check_path(ca_file)
    return ca_file if url.lower().startswith("https:") else None


def _check_path(ca_file: object) -> None:
    if ca_file is not None and (not isinstance(ca_file, (str, os.PathLike)) or not ca_file):
        raise InvalidInput(f"ca_file is {ca_file!r}; it must be the path of a file", "ca_file")


def _trusting(ca_file: str | None) -> ssl.SSLContext:
    file = ca_file or os.environ.get(CA_VARIABLE) or None
    try:
        return ssl.create_default_context(cafile=file)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{'ca_file' if ca_file else CA_VARIABLE}: {file} has no certificates that can be "
            f"read: {error}"
        ) from error


class AnswerReader:
    """Reads one answer from what comes: ``feed`` it, until ``answer`` is there.

    ``keeps`` says whether the connection can be used again. TooLarge for a body of more than
    ``largest`` bytes.
    """

    def __init__(self, largest: float = inf) -> None:
        self._largest = largest
        self.answer: Answer | None = None
        self.keeps = False
        self._came = bytearray()
        self._status = 0
        self._left: int | None = None
        self._is_chunked = False
        self._chunks: bytearray | None = None

    @property
    def has_begun(self) -> bool:
        return bool(self._came or self._status)

    def feed(self, data: bytes) -> None:
        """The next bytes; none are the end of the connection. Unanswered where that is too early,
        DelenError for what is no HTTP."""
        self._came += data
        while not self._status and self._read_head():
            pass
        size = max(self._left or 0, len(self._came) + len(self._chunks or b""))
        if self._status and size > self._largest:
            raise TooLarge(f"the answer is larger than {self._largest:.0f} bytes")
        if self._status and self._is_chunked:
            self._read_chunks()
        elif self._status and self._left is not None and len(self._came) >= self._left:
            self.keeps = self.keeps and len(self._came) == self._left
            self.answer = Answer(self._status, bytes(self._came[: self._left]))
        if data or self.answer is not None:
            return
        if self._status and self._left is None and not self._is_chunked:
            self.answer = Answer(self._status, bytes(self._came))
            return
        raise Unanswered("the connection was closed before the answer was whole", self.has_begun)

    def _read_head(self) -> bool:
        """Whether a head was read that is followed by another: an interim answer."""
        end = self._came.find(_END_OF_HEAD)
        if end < 0:
            if len(self._came) > _LARGEST_HEAD:
                raise self._wrong()
            return False
        version, _, rest = self._came[:end].decode("latin-1").partition(" ")
        status, _, lines = rest.partition("\r\n")
        fields = dict(line.lower().split(":", 1) for line in lines.split("\r\n") if ":" in line)
        if not (version.startswith("HTTP/1.") and status[:3].isdecimal()):
            raise self._wrong()
        del self._came[: end + len(_END_OF_HEAD)]
        if status.startswith("1"):
            return True
        self._is_chunked = "chunked" in fields.get("transfer-encoding", "")
        length = fields.get("content-length", "").strip()
        if length and not (length.isascii() and length.isdecimal()):
            raise self._wrong()
        self._status, self._left = int(status[:3]), int(length) if length else None
        self.keeps = (
            version == "HTTP/1.1"
            and fields.get("connection", "").strip() != "close"
            and (self._is_chunked or self._left is not None)
        )
        return False

    def _read_chunks(self) -> None:
        if self._chunks is None:
            self._chunks = bytearray()
        while (end := self._came.find(b"\r\n")) >= 0:
            try:
                size = int(self._came[:end].partition(b";")[0], 16)
            except ValueError:
                raise self._wrong() from None
            whole = end + 2 + size + 2
            if size == 0:
                if self._came.find(_END_OF_HEAD, end) == end or b"\r\n\r\n" in self._came[end:]:
                    self.answer = Answer(self._status, bytes(self._chunks))
                return
            if len(self._came) < whole:
                return
            self._chunks += self._came[end + 2 : whole - 2]
            del self._came[:whole]
        if len(self._came) > _LONGEST_LINE:
            raise self._wrong()

    def _wrong(self) -> DelenError:
        return DelenError(f"what came is not an HTTP answer: {bytes(self._came[:40])!r}")
