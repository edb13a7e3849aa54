"""Files that are written whole or not at all, and are on the disk once they are there."""

from __future__ import annotations

import glob
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """A hidden file beside ``target`` to write to; it replaces ``target``, whose permissions it
    gets, if the block succeeds.

    A block that fails leaves ``target`` as it was and nothing beside it; a killed process leaves
    at most the hidden file, which the next one removes. Raises OSError where the folder or the
    disk refuses.
    """
    hidden = f".{target.name}.unfinished-"
    for leftover in target.parent.glob(f"{glob.escape(hidden)}*"):
        if not is_alive(leftover.name[len(hidden) :].partition("-")[0]):
            leftover.unlink(missing_ok=True)
    unfinished = target.parent / f"{hidden}{os.getpid()}-{threading.get_ident()}"
    try:
        with naming(target):
            yield unfinished
            if target.exists():
                unfinished.chmod(stat.S_IMODE(target.stat().st_mode))
            sync(unfinished)
            unfinished.replace(target)
            sync(target.parent)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError of the system that names no file, as those of writes, names ``path``."""
    try:
        yield
    except OSError as error:
        if error.strerror is not None and error.filename is None:
            error.filename = str(path)
        raise


def write_atomically(target: Path, text: str) -> None:
    """Make ``target`` a file with ``text``, as ``atomic_file`` does, and its folder where there is
    none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(target) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def put_aside(path: Path) -> Path:
    """Rename a file that is damaged, so that somebody can still look at it; its new place."""
    names = (path.with_name(f"{path.name}.damaged-{n}") for n in count(1))
    aside = next(name for name in names if not name.exists())
    path.rename(aside)
    return aside


def sync(path: Path) -> None:
    """Wait until the file or folder ``path`` is on the disk; of a folder, the names in it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until ``folder`` and all that is in it is on the disk."""
    for above, _, files in os.walk(folder):
        for name in files:
            sync(Path(above, name))
        sync(Path(above))


def is_alive(process: str) -> bool:
    """Whether a process has the number ``process``, or it is not a number."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError, OverflowError):
        return True
    return True
