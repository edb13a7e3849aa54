from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from delen.core.atomic_file import atomic_file, sync_tree, write_atomically


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was forced to the disk by this thread, by the names that it had then; and when it
    renamed a file."""
    seen: list[str] = []
    own = threading.current_thread()
    fsync, replace = os.fsync, Path.replace

    def note_sync(descriptor: int) -> None:
        if threading.current_thread() is own:
            seen.append(Path(f"/proc/self/fd/{descriptor}").readlink().name.partition("-")[0])
        fsync(descriptor)

    def note_replace(path: Path, target: Path) -> Path:
        if threading.current_thread() is own:
            seen.append(f"-> {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_replace)
    return seen


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_in_a_folder_that_is_made(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "file", "käse\n")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == "käse\n".encode()
    assert names(tmp_path / "a" / "b") == ["file"]


def test_the_file_is_on_the_disk_before_its_name_and_then_the_name_is(
    tmp_path: Path, synced: list[str]
) -> None:
    write_atomically(tmp_path / "file", "text")
    assert synced == [".file.unfinished", "-> file", tmp_path.name.partition("-")[0]]


@pytest.mark.parametrize("error", [OSError("the disk is full"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_whole_and_nothing_beside_it(
    tmp_path: Path, error: BaseException
) -> None:
    file = tmp_path / "file"
    write_atomically(file, "old")
    with pytest.raises(type(error)), atomic_file(file) as unfinished:
        unfinished.write_text("new, hal")
        raise error
    assert file.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_disk_that_fails_to_take_it_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    write_atomically(file, "old")

    def fail(descriptor: int) -> None:
        raise OSError("input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="input/output"):
        write_atomically(file, "new")
    assert file.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_permissions_are_kept_and_those_of_a_new_file_are_the_usual_ones(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_atomically(file, "old")
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    file.chmod(0o640)
    write_atomically(file, "new")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_what_a_killed_process_left_is_removed_and_what_another_still_writes_is_not(
    tmp_path: Path,
) -> None:
    write = (
        "import os, sys, signal\n"
        "from pathlib import Path\n"
        "from delen.core.atomic_file import atomic_file\n"
        "with atomic_file(Path(sys.argv[1])) as unfinished:\n"
        "    unfinished.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    file = tmp_path / "file"
    write_atomically(file, "old")
    subprocess.run([sys.executable, "-c", write, str(file)], check=False)
    assert file.read_text() == "old"
    assert len(names(tmp_path)) == 2
    other = tmp_path / f".file.unfinished-{os.getppid()}-1"
    other.touch()
    write_atomically(file, "new")
    assert file.read_text() == "new"
    assert names(tmp_path) == sorted(["file", other.name])


def test_a_folder_that_is_missing_or_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        write_atomically(tmp_path / "file" / "below", "text")
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "missing" / "x") as unfinished:
        unfinished.write_text("text")


def test_all_of_a_folder_is_forced_to_the_disk(tmp_path: Path, synced: list[str]) -> None:
    folder = tmp_path / "bundle"
    (folder / "profiles").mkdir(parents=True)
    (folder / "graph").touch()
    (folder / "profiles" / "device").touch()
    sync_tree(folder)
    assert sorted(synced) == ["bundle", "device", "graph", "profiles"]
