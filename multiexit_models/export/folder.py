"""A folder that appears whole or not at all."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from delen.bundle.manifest import MANIFEST
from delen.core.atomic_file import is_alive, naming, sync, sync_tree
from delen.errors import InvalidInput

_STATES = ("unfinished", "replaced")


def check_target(folder: Path, overwrite: bool) -> None:
    """Raises InvalidInput where a bundle cannot or must not be written to ``folder``.

    Without ``overwrite`` nothing may be there; with it, only a bundle or an empty folder.
    """
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InvalidInput(f"{above} is not a folder that can be written to", "output")
    if not folder.exists():
        return
    if not overwrite:
        raise InvalidInput(f"{folder} exists; give another folder, or --overwrite", "output")
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / MANIFEST).is_file()):
        raise InvalidInput(f"{folder} is not a bundle and is not overwritten", "output")


def remove_leftovers(target: Path) -> None:
    """Remove what killed processes left beside ``target``.

    A bundle that was moved away when its process was killed returns to its place.
    """
    for state in _STATES:
        hidden = f".{target.name}.{state}-"
        for leftover in target.parent.glob(f"{glob.escape(hidden)}*"):
            process = leftover.name.removeprefix(hidden)
            if process != str(os.getpid()) and is_alive(process):
                continue
            if state == "replaced" and not target.exists():
                leftover.rename(target)
            else:
                shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def whole_folder(target: Path, overwrite: bool) -> Iterator[Path]:
    """A new folder beside ``target`` to write into; it becomes ``target`` if the block succeeds.

    A block that fails leaves ``target`` as it was and nothing beside it; a killed process leaves
    at most a hidden folder beside it, which the next one removes. Raises InvalidInput as
    ``check_target``.
    """
    remove_leftovers(target)
    check_target(target, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished, replaced = (
        target.parent / f".{target.name}.{state}-{os.getpid()}" for state in _STATES
    )
    try:
        with naming(target):
            unfinished.mkdir()
            yield unfinished
            sync_tree(unfinished)
            if target.exists():
                target.rename(replaced)
            unfinished.rename(target)
            sync(target.parent)
    finally:
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        for leftover in (unfinished, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
