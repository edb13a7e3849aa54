from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from delen.errors import InvalidInput
from multiexit_models.export.folder import whole_folder

REPOSITORY = Path(__file__).resolve().parents[3]


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_folder_appears_with_all_its_files(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "bundle"
    with whole_folder(target, overwrite=False) as folder:
        (folder / "manifest.json").write_text("{}")
        assert not target.exists()
    assert names(target) == ["manifest.json"]
    assert names(target.parent) == ["bundle"]


def test_failed_block_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "manifest.json").write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_folder(target, overwrite=True) as folder:
        (folder / "manifest.json").write_text("new")
        raise KeyboardInterrupt
    assert (target / "manifest.json").read_text() == "old"
    assert names(tmp_path) == ["bundle"]


def test_overwriting_replaces_all(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "manifest.json").write_text("old")
    (target / "stale").write_text("")
    with whole_folder(target, overwrite=True) as folder:
        (folder / "manifest.json").write_text("new")
    assert names(target) == ["manifest.json"]
    assert names(tmp_path) == ["bundle"]


def test_existing_target_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InvalidInput, match="exists"), whole_folder(tmp_path, overwrite=False):
        pytest.fail("the block ran")


def test_what_is_no_bundle_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InvalidInput, match="not a bundle"), whole_folder(tmp_path, overwrite=True):
        pytest.fail("the block ran")
    assert names(tmp_path) == ["thesis.tex"]


def test_killed_process_leaves_no_half_folder(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from multiexit_models.export.folder import whole_folder\n"
        "with whole_folder(Path(sys.argv[1]), False) as folder:\n"
        "    (folder / 'segment0.onnx').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(target)], cwd=REPOSITORY, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    assert not target.exists()
    assert all(name.startswith(".") for name in names(tmp_path))


def test_leftovers_of_killed_processes_go(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for leftover in (f".bundle.unfinished-{ended.pid}", f".bundle.replaced-{ended.pid}"):
        (tmp_path / leftover).mkdir()
    (tmp_path / f".bundle.replaced-{ended.pid}" / "manifest.json").write_text("old")
    running = tmp_path / ".bundle.unfinished-1"
    running.mkdir()
    with pytest.raises(InvalidInput, match="exists"), whole_folder(tmp_path / "bundle", False):
        pytest.fail("the block ran")
    assert names(tmp_path) == [running.name, "bundle"]
    assert (tmp_path / "bundle" / "manifest.json").read_text() == "old"
