from __future__ import annotations

import pytest

from delen import errors
from delen.errors import ERRORS_BY_CODE, DelenError, MissingExtra


def every_error() -> list[type[DelenError]]:
    return [
        value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, DelenError) and not name.startswith("_")
    ]


def test_every_error_has_a_code_of_its_own() -> None:
    assert len({error.code for error in every_error()}) == len(every_error())
    assert set(ERRORS_BY_CODE.values()) == set(every_error())


@pytest.mark.parametrize("error", every_error())
def test_codes_lead_back_to_their_error_and_statuses_are_http_errors(
    error: type[DelenError],
) -> None:
    assert ERRORS_BY_CODE[error.code] is error
    assert 400 <= error.status < 600


def test_a_missing_extra_is_an_import_error_with_the_remedy() -> None:
    error = MissingExtra("Pillow", "daemon")
    assert isinstance(error, ImportError)
    assert "pip install 'delen[daemon]'" in str(error)
