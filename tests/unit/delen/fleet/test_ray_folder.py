"""Folders of Ray do not pile up."""

from __future__ import annotations

from pathlib import Path

import pytest

from delen.fleet.ray_folder import RayFolder


def test_a_folder_that_a_dead_hub_left_is_removed_and_that_of_a_living_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / "delen-hub-left" / "session"
    left.mkdir(parents=True)
    other = tmp_path / "delen-hub-file"
    other.touch()
    first, second = RayFolder(), RayFolder()
    assert {Path(first.path), Path(second.path), other} == set(tmp_path.iterdir())
    second.remove()
    first.remove()
    assert list(tmp_path.iterdir()) == [other]
