"""docs/rest.md and docs/oip.md name every address, and every error code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from api.openapi.document import document
from delen.errors import ERRORS_BY_CODE

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "rest.md").read_text(encoding="utf-8")
OIP = (ROOT / "docs" / "oip.md").read_text(encoding="utf-8")
ADDRESSES = [
    f"{method.upper()} {path}"
    for path, methods in document("0")["paths"].items()
    for method in methods
]
CODES = {
    code: int(status)
    for codes, status in re.findall(r"^\| ([^|]+) \| (\d{3}) \|", PAGE, re.MULTILINE)
    for code in re.findall(r"`(\w+)`", codes)
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_address_of_the_openapi_document_is_named(address: str) -> None:
    page = OIP if "/v2" in address else PAGE
    assert f"`{address.replace('/versions/{version}', '')}`" in page


@pytest.mark.parametrize("code", sorted(ERRORS_BY_CODE))
def test_every_error_code_is_in_the_table_with_its_status(code: str) -> None:
    assert CODES[code] == ERRORS_BY_CODE[code].status
