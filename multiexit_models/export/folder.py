"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from delen.bundle.manifest import MANIFEST
from delen.core.atomic_file import sync, sync_tree
from delen.errors import InvalidInput


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


@contextmanager
def whole_folder(target: Path, overwrite: bool) -> Iterator[Path]:
    """A new folder beside ``target`` to write into; it becomes ``target`` if the block succeeds.

    A block that fails leaves ``target`` as it was and nothing beside it; a killed process leaves
    at most the hidden folder beside it. Raises InvalidInput as ``check_target``.
    """
    check_target(target, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.parent / f".{target.name}.unfinished-{os.getpid()}"
    replaced = target.parent / f".{target.name}.replaced-{os.getpid()}"
    shutil.rmtree(unfinished, ignore_errors=True)  # from a killed process of the same number
    unfinished.mkdir()
    try:
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
