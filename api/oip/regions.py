"""System shared memory: regions that clients registered, read and written without mapping them.

A mapped file that its owner shortens ends the process that touches it (SIGBUS). So bytes are copied
with ``preadv`` and ``pwrite``, which say that they are not there, or that there is no memory left.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from delen.errors import Forbidden, InvalidInput, NotFound, Overloaded, TooLarge
from delen.wire.oip import RegionPart

_FOLDER = Path("/dev/shm")
_KEY = re.compile(r"/?([^/\0]{1,255})")
_LONGEST_NAME = 255
_MOST, _MOST_OF_ONE = 128, 64
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class Region:
    """``byte_size`` bytes from ``offset`` of the open file ``file``, which is closed once nobody
    uses the region any more."""

    def __init__(self, name: str, key: str, offset: int, byte_size: int, file: int) -> None:
        self.name = name
        self.key = key
        self.offset = offset
        self.byte_size = byte_size
        self._file = file
        weakref.finalize(self, os.close, file)

    def read(self, offset: int, size: int) -> memoryview:
        """A copy of ``size`` bytes. InvalidInput if the file has become shorter."""
        copy = rest = np.empty(size, np.uint8).data
        while rest:
            count = os.preadv(self._file, [rest], self.offset + offset + size - len(rest))
            if not count:
                raise self._is_short()
            rest = rest[count:]
        return copy

    def write(self, offset: int, contents: bytes) -> None:
        """InvalidInput if the file has become shorter, or there is no memory for it."""
        rest, start = memoryview(contents), self.offset + offset
        if os.fstat(self._file).st_size < start + len(rest):
            raise self._is_short()
        try:
            while rest:
                rest = rest[os.pwrite(self._file, rest, start + len(contents) - len(rest)) :]
        except OSError as error:
            raise InvalidInput(
                f"shared memory region {self.name!r} cannot be written: {error.strerror}", "outputs"
            ) from None

    def _is_short(self) -> InvalidInput:
        return InvalidInput(
            f"shared memory region {self.name!r} is shorter than when it was registered",
            "shared_memory_region",
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a region a tensor is, or may be written to."""

    region: Region
    offset: int
    byte_size: int

    def read(self) -> memoryview:
        return self.region.read(self.offset, self.byte_size)

    def write(self, contents: bytes) -> None:
        if len(contents) > self.byte_size:
            raise InvalidInput(
                f"the output has {len(contents)} bytes; {self.byte_size} of shared memory region "
                f"{self.region.name!r} are meant for it",
                "shared_memory_byte_size",
            )
        self.region.write(self.offset, contents)


class Regions:
    """The regions of each user, by name. Many threads may call it.

    A user's regions are files in ``folder`` that belong to that user; nobody else can name them.
    Tensors in them have at most ``largest`` bytes.
    """

    def __init__(self, largest: int, folder: Path = _FOLDER) -> None:
        self._largest = largest
        self._folder = folder
        self._lock = threading.Lock()
        self._regions: dict[tuple[int, str], Region] = {}

    def register(self, user: int, name: str, key: str, offset: int, byte_size: int) -> None:
        """InvalidInput where there is no such file, it is too short, or ``name`` is in use;
        Forbidden where it is another user's, Overloaded where there are too many regions."""
        if not 0 < len(name) <= _LONGEST_NAME:
            raise InvalidInput(f"name must have 1 to {_LONGEST_NAME} characters", "name")
        if byte_size < 1 or offset < 0:
            raise InvalidInput("byte_size must be above 0, and offset at least 0", "byte_size")
        region = Region(name, key, offset, byte_size, self._open(user, key))
        size = os.fstat(region._file).st_size
        if offset + byte_size > size:
            raise InvalidInput(
                f"shared memory {key!r} has {size} bytes; the region would end at "
                f"{offset + byte_size}",
                "byte_size",
            )
        with self._lock:
            if (user, name) in self._regions:
                raise InvalidInput(f"shared memory region {name!r} is registered already", "name")
            own = sum(owner == user for owner, _ in self._regions)
            if own >= _MOST_OF_ONE or len(self._regions) >= _MOST:
                raise Overloaded("too many shared memory regions are registered", retry_after=1.0)
            self._regions[user, name] = region

    def unregister(self, user: int, name: str | None = None) -> None:
        """Forget ``name``, or all regions of ``user``. Requests under way still use them."""
        with self._lock:
            for owner, each in [*self._regions]:
                if owner == user and name in (None, each):
                    del self._regions[owner, each]

    def list(self, user: int, name: str | None = None) -> list[Region]:
        """The regions of ``user``, or the one called ``name``, which is NotFound if it is none."""
        with self._lock:
            found = [
                region
                for (owner, each), region in sorted(self._regions.items())
                if owner == user and name in (None, each)
            ]
        if name is not None and not found:
            raise NotFound(f"there is no shared memory region {name!r}")
        return found

    def place(self, user: int, part: RegionPart) -> Place:
        """What ``part`` names. InvalidInput unless it is in a region of ``user``."""
        with self._lock:
            region = self._regions.get((user, part.region or ""))
        if region is None:
            raise InvalidInput(
                f"there is no shared memory region {part.region!r}", "shared_memory_region"
            )
        if part.offset + part.byte_size > region.byte_size:
            raise InvalidInput(
                f"shared memory region {part.region!r} has {region.byte_size} bytes; the tensor "
                f"would end at {part.offset + part.byte_size}",
                "shared_memory_byte_size",
            )
        if part.byte_size > self._largest:
            raise TooLarge(f"the tensor has {part.byte_size} bytes; the limit is {self._largest}")
        return Place(region, part.offset, part.byte_size)

    def _open(self, user: int, key: str) -> int:
        """The file ``key``, checked to be one of ``user``."""
        match = _KEY.fullmatch(key)
        if match is None or match[1] in (".", ".."):
            raise InvalidInput(f"key {key!r} is not the name of shared memory", "key")
        try:
            file = os.open(self._folder / match[1], _FLAGS)
        except (FileNotFoundError, ValueError, UnicodeEncodeError):
            raise InvalidInput(f"there is no shared memory {key!r}", "key") from None
        except PermissionError:
            raise Forbidden(
                f"the daemon's user may not read and write shared memory {key!r}: give it to a "
                "group of both, with mode 0660"
            ) from None
        except OSError as error:
            raise InvalidInput(
                f"shared memory {key!r} cannot be opened: {error.strerror}", "key"
            ) from None
        status = os.fstat(file)
        if stat.S_ISREG(status.st_mode) and status.st_uid == user:
            return file
        os.close(file)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInput(f"key {key!r} is not the name of shared memory", "key")
        raise Forbidden(f"shared memory {key!r} belongs to another user")
