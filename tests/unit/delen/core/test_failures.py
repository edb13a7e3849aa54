from __future__ import annotations

import errno
import logging
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from delen.core.failures import FailureCounter, disk_errors, failure_counts
from delen.errors import DelenError, NotKept

LOG = logging.getLogger("delen.test")


def test_the_first_of_a_kind_is_logged_and_all_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counter = FailureCounter("here", LOG)
    before = failure_counts()["here"]
    for _ in range(3):
        counter.failed(KeyError("x"), "the plug-in of %s failed", "tiny")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "the plug-in of tiny failed: 'x'" in caplog.text
    assert "KeyError" in caplog.text, "with its traceback"
    counter.failed(ValueError("y"), "the plug-in of %s failed", "tiny")
    counter.failed(KeyError("x"), "the plug-in of %s failed", "large")
    counter.failed(KeyError("x"), "the end of %s failed", "tiny")
    assert len(caplog.records) == 4, "another error, model or event is another kind"
    assert counter.count == 6
    assert failure_counts()["here"] == before + 6


def test_an_error_that_says_what_is_wrong_needs_no_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    FailureCounter("here", LOG).failed(DelenError("the disk is full"), "it is not kept")
    assert caplog.records[0].exc_info is None
    assert "it is not kept: the disk is full" in caplog.text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_refuses_is_named_without_a_traceback(
    number: int, caplog: pytest.LogCaptureFixture
) -> None:
    counter, error = FailureCounter("disk", LOG), OSError(number, os.strerror(number), "/s/a.json")
    counter.failed(error, "it is not kept")
    assert caplog.records[0].exc_info is None
    assert "/s/a.json" in caplog.text and "delen_internal_failures_total" in caplog.text
    assert disk_errors()["disk"] is error
    counter.failed(KeyError("x"), "another failed")
    assert "disk" not in disk_errors()
    caused = NotKept("it cannot be written")
    caused.__cause__ = error
    counter.failed(caused, "it is not kept")
    assert disk_errors()["disk"] is error


def test_counts_of_one_name_add_up(caplog: pytest.LogCaptureFixture) -> None:
    counters = [FailureCounter("there", LOG) for _ in range(4)]
    before = failure_counts()["there"]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda counter: [counter.add(1) for _ in range(1000)], counters))
    assert failure_counts()["there"] == before + 4000
    assert [counter.count for counter in counters] == [1000] * 4
    assert caplog.text == ""
