from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from delen.bundle.manifest import Bundle, load_bundle
from delen.errors import ProfileError
from delen.profile.profile import Device, Profile
from delen.profile.reader import load_profile
from delen.profile.store import (
    beside_file,
    check_profile,
    find_profile,
    keep_profile,
    save_profile,
    state_file,
)

MakeProfile = Callable[..., Profile]
HERE = Device("test board", 2, "onnxruntime", "cpu", 1, "default")
ELSEWHERE = replace(HERE, processor="another board")


@pytest.fixture
def bundle(write_bundle: Callable[..., Path], tmp_path: Path) -> Bundle:
    return load_bundle(write_bundle(tmp_path / "tiny"))


@pytest.fixture
def profile(bundle: Bundle, make_profile: MakeProfile) -> Profile:
    return make_profile(0.01, 0.01, 0.01, bundle=bundle.digest)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_a_saved_profile_is_found(state: Path, bundle: Bundle, profile: Profile) -> None:
    assert find_profile(state, bundle, HERE) is None
    save_profile(profile, state_file(state, bundle, HERE))
    found = find_profile(state, bundle, HERE)
    assert found is not None
    assert found.to_json() == profile.to_json()
    assert find_profile(state, bundle, ELSEWHERE) is None


def test_the_state_folder_comes_before_the_bundle(
    state: Path, bundle: Bundle, profile: Profile
) -> None:
    save_profile(replace(profile, created="beside"), beside_file(bundle, HERE))
    beside = find_profile(state, bundle, HERE)
    save_profile(replace(profile, created="state"), state_file(state, bundle, HERE))
    kept = find_profile(state, bundle, HERE)
    assert beside is not None
    assert kept is not None
    assert (beside.created, kept.created) == ("beside", "state")


def test_profiles_beside_a_bundle_do_not_change_it(
    tmp_path: Path, bundle: Bundle, profile: Profile
) -> None:
    save_profile(profile, beside_file(bundle, HERE))
    assert load_bundle(bundle.path).digest == bundle.digest


def test_profiles_that_do_not_serve_are_passed_over_and_logged(
    state: Path,
    bundle: Bundle,
    profile: Profile,
    make_profile: MakeProfile,
    caplog: pytest.LogCaptureFixture,
) -> None:
    save_profile(replace(profile, created="beside"), beside_file(bundle, HERE))
    file = state_file(state, bundle, HERE)
    misfits = [
        replace(profile, device=ELSEWHERE).to_json(),
        replace(profile, bundle="1" * 64).to_json(),
        replace(profile, segments=profile.segments[:2]).to_json(),
        make_profile(0.01, 0.01, 0.01, bundle=bundle.digest, batches=(1, 4)).to_json(),
        profile.to_json()[:-20],
    ]
    for text in misfits:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "delen.profiles"):
            found = find_profile(state, bundle, HERE)
        assert found is not None
        assert found.created == "beside"
        assert str(file) in caplog.text


def test_a_profile_says_why_it_does_not_serve(bundle: Bundle, profile: Profile) -> None:
    check_profile(profile, bundle, HERE)
    check_profile(profile, bundle, None)
    with pytest.raises(ProfileError, match="another device"):
        check_profile(profile, bundle, ELSEWHERE)
    with pytest.raises(ProfileError, match="another bundle"):
        check_profile(replace(profile, bundle="x"), bundle, None)


def test_saving_replaces_the_file_and_leaves_nothing_else(tmp_path: Path, profile: Profile) -> None:
    file = tmp_path / "new" / "folder" / "device.json"
    save_profile(profile, file)
    save_profile(replace(profile, created="later"), file)
    assert load_profile(file).created == "later"
    assert [path.name for path in file.parent.iterdir()] == ["device.json"]


def test_a_write_that_fails_keeps_the_earlier_file(
    tmp_path: Path, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "device.json"
    save_profile(profile, file)

    def fail(path: Path, text: str, encoding: str) -> None:
        path.open("w").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(ProfileError, match=f"{file} cannot be written: No space left"):
        save_profile(replace(profile, created="later"), file)
    assert load_profile(file).to_json() == profile.to_json()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, profile: Profile) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProfileError, match="cannot be written"):
        save_profile(profile, tmp_path / "file" / "device.json")


def test_one_file_has_the_profiles_of_all_input_sizes(
    state: Path, bundle: Bundle, profile: Profile
) -> None:
    large = replace(bundle, size=(8, 8), smaller=(replace(bundle, size=(4, 4)),))
    profiles = [replace(profile, model=each.variant) for each in large.sizes]
    file = state_file(state, large, HERE)
    for each, measured in zip(large.sizes, profiles, strict=True):
        assert find_profile(state, each, HERE) is None
        keep_profile(measured, each, file)
    keep_profile(replace(profiles[1], created="later"), large.smaller[0], file)
    found = [find_profile(state, each, HERE) for each in large.sizes]
    assert found == [profiles[0], replace(profiles[1], created="later")]
    assert [each.model for each in load_profile(file).sizes] == ["tiny@8x8", "tiny@4x4"]


def test_a_damaged_profile_is_put_aside_where_a_new_one_is_kept(
    state: Path, bundle: Bundle, profile: Profile, caplog: pytest.LogCaptureFixture
) -> None:
    file = state_file(state, bundle, HERE)
    file.parent.mkdir(parents=True)
    file.write_text('{"format": ')
    keep_profile(profile, bundle, file)
    assert find_profile(state, bundle, HERE) == profile
    aside = file.with_name(f"{file.name}.damaged-1")
    assert aside.read_text() == '{"format": '
    assert str(aside) in caplog.text
