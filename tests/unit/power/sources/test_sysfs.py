"""Files of the kernel: what is in them, and why they cannot be read."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from delen.errors import SensorAbsent, SensorDenied, SensorFailed
from power.sources.sysfs import read_number, read_text
from tests.other_user import as_other_user, open_folder


@pytest.mark.parametrize(
    ("text", "number"), [("5000\n", 5000), ("-12\n", -12), (" 7 ", 7), ("5000\0\n", 5000)]
)
def test_numbers_may_be_negative_with_white_space_around(
    text: str, number: int, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text(text)
    assert read_number(tmp_path / "file") == number


@pytest.mark.parametrize("text", ["", "\n", "abc", "12 34", "nan", "1.5", "1_000", "0x10", "٣"])
def test_what_is_no_number_is_quoted(text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(SensorFailed, match=r"file has '.*'"):
        read_number(tmp_path / "file")


def test_bytes_that_are_no_text_are_no_number(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff\xfe\x00" * 100)
    with pytest.raises(SensorFailed, match="not a whole number") as raised:
        read_number(tmp_path / "file")
    assert len(str(raised.value)) < len(str(tmp_path)) + 400


def test_text_comes_without_the_white_space_around_it(tmp_path: Path) -> None:
    (tmp_path / "label").write_text("VDD_IN \n")
    assert read_text(tmp_path / "label") == "VDD_IN"


def test_a_missing_file_is_an_absent_sensor(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("1")
    for missing in (tmp_path / "none", tmp_path / "file" / "below"):
        with pytest.raises(SensorAbsent, match=f"there is no {missing}"):
            read_text(missing)


def test_a_forbidden_file_is_denied_with_what_would_help() -> None:
    with open_folder() as folder:
        file = folder / "file"
        file.write_text("1")
        with as_other_user():
            assert read_number(file) == 1
        file.chmod(0)
        with as_other_user(), pytest.raises(SensorDenied, match=str(file)) as raised:
            read_number(file)
    assert "udev" in str(raised.value.remedy)


def test_a_genuine_input_output_error_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").symlink_to("/proc/self/mem")
    with pytest.raises(SensorFailed, match="file failed: Input/output error"):
        read_number(tmp_path / "file")


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ETIMEDOUT, SensorFailed),
        (errno.ENODEV, SensorFailed),
        (errno.ENODATA, SensorFailed),
        (errno.EAGAIN, SensorFailed),
        (errno.ENOENT, SensorAbsent),
        (errno.EACCES, SensorDenied),
        (errno.EPERM, SensorDenied),
    ],
)
def test_errors_that_are_injected_at_the_read(number: int, kind: type[Exception]) -> None:
    def read(path: Path) -> str:
        raise OSError(number, os.strerror(number), path)

    with pytest.raises(kind, match="curr1_input") as raised:
        read_number(Path("curr1_input"), read)
    assert type(raised.value) is kind


@pytest.mark.parametrize("text", ["5000 mW\n", "5000 mw", "5000mW\0", "5000"])
def test_a_number_may_have_its_own_unit(text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(text)
    assert read_number(tmp_path / "file", unit="mW") == 5000


@pytest.mark.parametrize("text", ["5000 uW", "5000 W", "5000 mA", "5 kW"])
def test_another_unit_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(SensorFailed, match="its unit is mW"):
        read_number(tmp_path / "file", unit="mW")
    with pytest.raises(SensorFailed, match="it has no unit"):
        read_number(tmp_path / "file")
