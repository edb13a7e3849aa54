"""docs/troubleshooting.md has each refusal of a request under its status."""

from __future__ import annotations

import re
from pathlib import Path

from delen.errors import ERRORS_BY_CODE

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "troubleshooting.md").read_text("utf-8")
REFUSALS = PAGE.split("## A request is refused")[1].split("\n## ")[0]
NAMED = {code: int(status) for status, code in re.findall(r"(\d{3}) `(\w+)`", REFUSALS)}
OF_THE_CLIENT = {"daemon_unreachable", "not_settled", "method_not_allowed"}
SUBJECTS_OF_DOCTOR = {"power_unavailable", "sensor_absent", "sensor_denied", "sensor_failed"}


def test_codes_have_their_status() -> None:
    statuses = {code: error.status for code, error in ERRORS_BY_CODE.items()}
    assert len(NAMED) > 12
    assert {
        code: status for code, status in NAMED.items() if statuses.get(code, status) != status
    } == {}


def test_every_refusal_is_named() -> None:
    refusals = {code for code, error in ERRORS_BY_CODE.items() if error.status != 500}
    assert refusals - NAMED.keys() <= OF_THE_CLIENT | SUBJECTS_OF_DOCTOR
