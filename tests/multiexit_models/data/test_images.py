from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delen.bundle.manifest import ImagePreprocessing
from delen.engine.inputs import decode_body
from delen.errors import InvalidInput
from multiexit_models.data import gather
from multiexit_models.data.dataset import Dataset
from multiexit_models.data.folders import OWN_GROUPS
from multiexit_models.data.images import read_image_folder
from multiexit_models.data.reading import Reading
from multiexit_models.data.splits import PARTS

SHAPE = (8, 10, 3)


@pytest.fixture
def read() -> Callable[..., Dataset]:
    def read(path: Path, shape: tuple[int, ...] = SHAPE, **settings: Any) -> Dataset:
        return read_image_folder(path, Reading(shape=shape, **settings))

    return read


def rows(data: Dataset) -> dict[str, set[bytes]]:
    return {part: {row.tobytes() for row in getattr(data, part).inputs} for part in PARTS}


def same(one: Dataset, two: Dataset) -> bool:
    return all(
        np.array_equal(getattr(one, part).inputs, getattr(two, part).inputs)
        and np.array_equal(getattr(one, part).labels, getattr(two, part).labels)
        for part in PARTS
    )


def test_class_folders_become_four_parts(image_folder: Path, read: Callable[..., Dataset]) -> None:
    (image_folder / "README.txt").write_text("pictures of pets")
    (image_folder / ".hidden").mkdir()
    (image_folder / "ant" / ".DS_Store").write_bytes(b"\0")
    data = read(image_folder)
    assert (data.name, data.classes, data.skipped) == ("pets", ("ant", "bee", "cat"), ())
    assert data.input.image == ImagePreprocessing("RGB", "bilinear", "exif", (255, 255, 255))
    assert [len(getattr(data, part)) for part in PARTS] == [36, 6, 9, 9]
    assert len(set.union(*rows(data).values())) == 60
    counts = [np.bincount(getattr(data, part).labels, minlength=3) for part in PARTS]
    assert sum(counts).tolist() == [10, 20, 30]
    assert same(data, read(image_folder))
    assert not same(data, read(image_folder, seed=1))


@pytest.mark.parametrize("shape", [SHAPE, (8, 10, 1)])
@pytest.mark.parametrize(("ending", "media_type"), [("png", "image/png"), ("JPG", "image/jpeg")])
def test_training_sees_what_serving_sees(
    shape: tuple[int, ...],
    ending: str,
    media_type: str,
    tmp_path: Path,
    write_image: Callable[..., Path],
    read: Callable[..., Dataset],
) -> None:
    files = {}
    for name in ("a", "b"):
        for part in ("train", "val", "cal", "test"):
            file = tmp_path / part / name / f"0.{ending}"
            files[part, name] = write_image(file, len(files), size=(333, 200))
    data = read(tmp_path, shape)
    for (part, name), file in files.items():
        place = PARTS[("train", "val", "cal", "test").index(part)]
        row = getattr(data, place).inputs["ab".index(name)]
        served = decode_body(file.read_bytes(), media_type, data.input)
        np.testing.assert_array_equal(row, served)


@pytest.mark.parametrize("ending", ["jpeg", "bmp", "webp", "gif", "tif", "ppm"])
def test_many_formats_are_read(
    ending: str, tmp_path: Path, write_image: Callable[..., Path], read: Callable[..., Dataset]
) -> None:
    for number in range(10):
        write_image(tmp_path / "a" / f"{number}.{ending}", number)
        write_image(tmp_path / "b" / f"{number}.{ending}", 10 + number)
    assert len(read(tmp_path, max_unreadable=0).training) == 12


def test_given_parts_are_kept(
    tmp_path: Path, write_image: Callable[..., Path], read: Callable[..., Dataset]
) -> None:
    for number in range(10):
        for name in ("a", "b"):
            write_image(tmp_path / "train" / name / f"{number}.png", number)
    write_image(tmp_path / "Test" / "b" / "0.png", 99)
    data = read(tmp_path)
    assert [len(getattr(data, part)) for part in PARTS] == [15, 2, 3, 1]
    assert data.test.labels.tolist() == [1]


def test_links_are_followed(
    image_folder: Path, tmp_path: Path, read: Callable[..., Dataset]
) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("ant", "bee"):
        (linked / name).symlink_to(image_folder / name)
    assert read(linked).classes == ("ant", "bee")


def test_groups_stay_together(
    tmp_path: Path, write_image: Callable[..., Path], read: Callable[..., Dataset]
) -> None:
    for number in range(40):
        file = tmp_path / "ab"[number % 2] / f"track{number // 4}_{number}.png"
        write_image(file, number // 4)  # so that a track is known by its pixels
    found = rows(read(tmp_path, group_by=r"track\d+"))
    assert sum(map(len, found.values())) == len(set.union(*found.values())) == 10


def signs(folder: Path, write_image: Callable[..., Path], name: str) -> None:
    """Two classes of 10 tracks each with 4 frames, a track known by its pixels. ``name`` is that of
    a frame's file, by class, track and frame."""
    for number in range(80):
        label, track, frame = number // 40, number // 4 % 10, number % 4
        file = folder / "ab"[label] / name.format(label=label, track=track, frame=frame)
        write_image(file, number // 4)


@pytest.mark.parametrize(
    ("name", "settings", "groups", "noted"),
    [
        ("{track:05d}_{frame:05d}.png", {}, None, ["--group-by '([^/]+/[^/_]+)[^/]*$'"]),
        ("{track:05d}_{frame:05d}.png", {"group_by": "([^/]+/[^/_]+)[^/]*$"}, 20, []),
        (
            "{track}/{frame}.png",
            {},
            10,
            ["10 groups", f"--group-by '{OWN_GROUPS}' gives 20"],
        ),
        ("{track}/{frame}.png", {"group_by": "([^/]+/[^/]+)/[^/]+$"}, 20, []),
        ("{label}-{track}/{frame}.png", {}, 20, ["20 groups"]),
        ("{track}-{frame}x.png", {}, None, []),
    ],
)
def test_groups_are_of_names_or_folders(
    name: str,
    settings: dict[str, str],
    groups: int | None,
    noted: list[str],
    tmp_path: Path,
    write_image: Callable[..., Path],
    read: Callable[..., Dataset],
) -> None:
    signs(tmp_path, write_image, name)
    data = read(tmp_path, **settings)
    assert len(data.notes) == bool(noted)
    for sentence in noted:
        assert sentence in data.notes[0]
    parts = [getattr(data, part) for part in PARTS]
    if groups is None:
        assert all(part.groups is None and part.group_count is None for part in parts)
        return
    assert sum(part.group_count for part in parts) == groups
    owners: dict[bytes, set[int]] = {}
    for part in parts:
        for row, group in zip(part.inputs, part.groups.tolist(), strict=True):
            owners.setdefault(row.tobytes(), set()).add(group)
    assert all(len(found) == 1 for found in owners.values())  # a track is of one group
    assert len(set.union(*owners.values())) == groups


def test_groups_pass_over_unreadable_files_and_come_from_the_cache(
    tmp_path: Path, write_image: Callable[..., Path], read: Callable[..., Dataset]
) -> None:
    signs(tmp_path / "signs", write_image, "{label}-{track}/{frame}.png")
    (tmp_path / "signs" / "a" / "0-3" / "1.png").write_bytes(b"no image")
    for _ in range(2):
        data = read(tmp_path / "signs", max_unreadable=0.1, cache=tmp_path / "cache")
        pairs = {
            (row.tobytes(), int(group))
            for part in PARTS
            for row, group in zip(
                getattr(data, part).inputs, getattr(data, part).groups, strict=True
            )
        }
        assert len(pairs) == 20


def a_flat_class(folder: Path) -> None:
    for file in (folder / "b").glob("*/*"):
        file.rename(folder / "b" / f"{file.parent.name}x{file.name}")
    for empty in list((folder / "b").iterdir()):
        if empty.is_dir():
            empty.rmdir()


def a_file_beside(folder: Path) -> None:
    (folder / "b" / "3" / "0.png").rename(folder / "b" / "0.png")


def a_deeper_folder(folder: Path) -> None:
    (folder / "b" / "3" / "more").mkdir()


def an_empty_group(folder: Path) -> None:
    (folder / "b" / "new").mkdir()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (a_flat_class, "b/.*png lies in none; .*--group-by REGEX"),
        (a_file_beside, "class folder .*b has .*/0 beside files; .*FOLDER/CLASS/GROUP/FILE"),
        (a_deeper_folder, "3/more lies too deep"),
        (an_empty_group, "b/new has no images"),
    ],
)
def test_folders_of_groups_are_one_level_in_every_class(
    change: Callable[[Path], None],
    match: str,
    tmp_path: Path,
    write_image: Callable[..., Path],
    read: Callable[..., Dataset],
) -> None:
    signs(tmp_path, write_image, "{track}/{frame}.png")
    change(tmp_path)
    with pytest.raises(InvalidInput, match=match) as caught:
        read(tmp_path)
    assert caught.value.field == "data"


def test_a_group_folder_in_two_given_parts_is_refused(
    tmp_path: Path, write_image: Callable[..., Path], read: Callable[..., Dataset]
) -> None:
    signs(tmp_path / "train", write_image, "{track}/{frame}.png")
    signs(tmp_path / "calibration", write_image, "{track}/{frame}.png")
    with pytest.raises(
        InvalidInput, match=r"in both calibration and training.*--group-by"
    ) as caught:
        read(tmp_path)
    assert caught.value.field == "group_by"
    data = read(tmp_path, group_by="(.+)/")
    assert data.calibration.group_count == 20


def class_by_row(data: Dataset) -> dict[bytes, int]:
    labelled = [getattr(data, part) for part in PARTS]
    return {
        row.tobytes(): int(label)
        for part in labelled
        for row, label in zip(part.inputs, part.labels, strict=True)
    }


def test_unreadable_images_are_named_and_skipped_up_to_a_share(
    image_folder: Path, read: Callable[..., Dataset]
) -> None:
    intact = class_by_row(read(image_folder))
    (image_folder / "cat" / "05.png").write_bytes(b"no image")
    (image_folder / "bee" / "03.png").write_bytes(
        (image_folder / "bee" / "04.png").read_bytes()[:150]
    )
    data = read(image_folder, max_unreadable=0.04)
    assert sorted(line.split(":")[0] for line in data.skipped) == ["bee/03.png", "cat/05.png"]
    assert any("it is not JPEG, PNG" in line for line in data.skipped)
    assert sum(len(getattr(data, part)) for part in PARTS) == 58
    left = class_by_row(data)
    assert len(left) == 58
    assert left.items() <= intact.items()  # each with the label that is its own
    with pytest.raises(InvalidInput, match=r"2 of 60 files \(3\.33%\).*at most 3\.00%") as error:
        read(image_folder, max_unreadable=0.03)
    assert "bee/03.png" in str(error.value)
    assert "cat/05.png" in str(error.value)


def test_only_the_first_unreadable_files_are_named(
    image_folder: Path, read: Callable[..., Dataset]
) -> None:
    for file in (image_folder / "cat").iterdir():
        file.write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"30 of 60.*the image is empty.*and 25 more"):
        read(image_folder)


def test_a_class_with_nothing_readable_is_refused(
    image_folder: Path, read: Callable[..., Dataset]
) -> None:
    for file in (image_folder / "ant").iterdir():
        file.write_bytes(b"nothing")
    with pytest.raises(InvalidInput, match="class 'ant' has no samples"):
        read(image_folder, max_unreadable=0.5)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_plain_file_is_unreadable(
    image_folder: Path, read: Callable[..., Dataset]
) -> None:
    os.mkfifo(image_folder / "ant" / "pipe.png")
    (image_folder / "ant" / "gone.png").symlink_to(image_folder / "nowhere.png")
    data = read(image_folder, max_unreadable=0.1)
    assert {line.split(":")[0] for line in data.skipped} == {"ant/pipe.png", "ant/gone.png"}


def test_other_files_are_counted_not_read(image_folder: Path, read: Callable[..., Dataset]) -> None:
    (image_folder / "ant" / "notes.txt").write_text("nothing")
    (image_folder / "ant" / "Thumbs.db").write_bytes(b"\0")
    assert read(image_folder).skipped == ("ant: 2 files that are not images (.db, .txt)",)


def empty_class(folder: Path) -> None:
    (folder / "dog").mkdir()


def loose_file(folder: Path) -> None:
    (folder / "ant" / "00.png").rename(folder / "00.png")


def nested(folder: Path) -> None:
    (folder / "ant" / "more").mkdir()


def without_train(folder: Path) -> None:
    for name in ("ant", "bee", "cat"):
        (folder / name).rename(folder / {"ant": "val", "bee": "test", "cat": "cal"}[name])


def beside_train(folder: Path) -> None:
    (folder / "train").mkdir()


def foreign_class(folder: Path) -> None:
    (folder / "train").mkdir()
    for name in ("ant", "bee"):
        (folder / name).rename(folder / "train" / name)
    (folder / "test").mkdir()
    (folder / "cat").rename(folder / "test" / "cat")


def twice(folder: Path) -> None:
    (folder / "ant").rename(folder / "train")
    (folder / "bee").rename(folder / "Train")
    (folder / "cat").rename(folder / "test")


def other_files_only(folder: Path) -> None:
    for file in (folder / "ant").iterdir():
        file.rename(file.with_suffix(".heic"))


def one_class(folder: Path) -> None:
    (folder / "ant").rename(folder / ".ant")
    (folder / "bee").rename(folder / ".bee")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (empty_class, "the folder .*dog has no images"),
        (loose_file, r"00\.png lies directly in .*pets and so has no class; .*FOLDER/CLASS/FILE"),
        (nested, "class folder .*ant has .*more beside files"),
        (without_train, "has cal, test, val but no train"),
        (beside_train, "has 'ant' beside a folder for training.*move 'ant' into it.*rename"),
        (foreign_class, "test/cat is not a class of .*train, which has ant, bee"),
        (twice, "has 2 folders for training"),
        (other_files_only, "ant has no images .*only 10 files with other endings"),
        (one_class, "has only one class; images belong in one folder a class"),
    ],
)
def test_another_layout_is_refused(
    change: Callable[[Path], None],
    match: str,
    image_folder: Path,
    read: Callable[..., Dataset],
) -> None:
    change(image_folder)
    with pytest.raises(InvalidInput, match=match):
        read(image_folder)


@pytest.mark.parametrize("names", [("train",), ("test",), ("Train", "val")])
def test_a_class_may_have_the_name_of_a_part(
    names: tuple[str, ...], image_folder: Path, read: Callable[..., Dataset]
) -> None:
    for old, new in zip(("ant", "bee"), names, strict=False):
        (image_folder / old).rename(image_folder / new)
    data = read(image_folder)
    assert set(names) < set(data.classes)
    assert len(data.classes) == 3


def test_nothing_to_read(tmp_path: Path, read: Callable[..., Dataset]) -> None:
    with pytest.raises(InvalidInput, match="has no classes; images belong"):
        read(tmp_path)
    with pytest.raises(InvalidInput, match="absent is not a folder"):
        read(tmp_path / "absent")


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 4), (0, 8, 3)])
def test_a_shape_of_no_image_is_refused(
    shape: tuple[int, ...], image_folder: Path, read: Callable[..., Dataset]
) -> None:
    with pytest.raises(InvalidInput, match="height, width and 1 or 3 channels"):
        read(image_folder, shape)


def test_progress_is_told(image_folder: Path, read: Callable[..., Dataset]) -> None:
    told: list[tuple[int, int]] = []
    read(image_folder, on_file=lambda done, total: told.append((done, total)))
    assert told == [(done, 60) for done in range(1, 61)]


class TestCache:
    def test_the_cache_is_made_once_and_mapped(
        self, image_folder: Path, tmp_path: Path, read: Callable[..., Dataset]
    ) -> None:
        cache = tmp_path / "work" / "cache"
        (image_folder / "cat" / "05.png").write_bytes(b"no image")
        told: list[int] = []

        def on_file(done: int, total: int) -> None:
            told.append(done)

        settings = {"max_unreadable": 0.05, "on_file": on_file}
        first = read(image_folder, cache=cache, **settings)
        assert isinstance(first.training.inputs.base, np.memmap)
        assert sorted(file.name for file in cache.iterdir()) == ["samples.json", "samples.npy"]
        again = read(image_folder, cache=cache, **settings)
        assert len(told) == 60  # all of them from the first time
        assert same(first, again)
        assert same(first, read(image_folder, **settings))
        assert first.skipped == again.skipped != ()

    @pytest.mark.parametrize("what", ["file", "shape", "seed", "more"])
    def test_it_is_made_again_when_anything_changed(
        self,
        what: str,
        image_folder: Path,
        tmp_path: Path,
        write_image: Callable[..., Path],
        read: Callable[..., Dataset],
    ) -> None:
        read(image_folder, cache=tmp_path / "cache")
        settings: dict[str, Any] = {}
        if what == "file":
            write_image(image_folder / "ant" / "00.png", 12345)
        elif what == "more":
            write_image(image_folder / "ant" / "99.png", 12345)
        else:
            settings = {"shape": (4, 4, 3)} if what == "shape" else {"seed": 1}
        cached = read(image_folder, cache=tmp_path / "cache", **settings)
        assert same(cached, read(image_folder, **settings))

    @pytest.mark.parametrize("contents", ["", "{}", "[]", "null", '{"fingerprint": 1}'])
    def test_a_damaged_index_is_not_believed(
        self, contents: str, image_folder: Path, tmp_path: Path, read: Callable[..., Dataset]
    ) -> None:
        first = read(image_folder, cache=tmp_path / "cache")
        (tmp_path / "cache" / "samples.json").write_text(contents)
        assert same(first, read(image_folder, cache=tmp_path / "cache"))

    def test_an_interrupted_read_leaves_nothing_behind(
        self, image_folder: Path, tmp_path: Path, read: Callable[..., Dataset]
    ) -> None:
        def interrupt(done: int, total: int) -> None:
            if done == 30:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            read(image_folder, cache=tmp_path / "cache", on_file=interrupt)
        assert list((tmp_path / "cache").iterdir()) == []

    def test_what_a_killed_process_left_is_taken_away(
        self, image_folder: Path, tmp_path: Path, read: Callable[..., Dataset]
    ) -> None:
        cache = tmp_path / "cache"
        cache.mkdir()
        (cache / ".samples.npy.unfinished-1").write_bytes(b"half")
        read(image_folder, cache=cache)
        assert sorted(file.name for file in cache.iterdir()) == ["samples.json", "samples.npy"]

    def test_a_cache_that_cannot_be_written_is_named(
        self, image_folder: Path, tmp_path: Path, read: Callable[..., Dataset]
    ) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(InvalidInput, match=r"cache .*file/cache cannot be used"):
            read(image_folder, cache=tmp_path / "file" / "cache")


def test_memory_holds_a_few_files_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many files there are, only ``_AT_ONCE`` are decoded ahead of the one in hand."""
    monkeypatch.setattr(gather, "_AT_ONCE", 4)
    loaded: list[int] = []

    def source(number: int) -> gather.Source:
        def load() -> np.ndarray:
            loaded.append(number)
            return np.zeros(1, np.uint8)

        return gather.Source(str(number), "", 0, load)

    for index, _ in gather._decode([source(number) for number in range(20)], None):
        assert len(loaded) <= 4 * (index // 4 + 1)
    assert sorted(loaded) == list(range(20))
