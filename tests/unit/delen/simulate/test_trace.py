from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.core.bounds import Bounds
from delen.errors import ERRORS_BY_CODE, InvalidInput, TraceError
from delen.simulate.requests import Requests
from delen.simulate.trace import COLUMNS, Arrival, Trace, read_trace

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}", fullmatch=True)
CAPS = st.floats(min_value=1e-300, max_value=1e300, exclude_min=True)
ARRIVALS = st.builds(
    Arrival,
    time=st.floats(min_value=0, allow_infinity=False, allow_nan=False),
    tenant=NAMES,
    model=st.none() | NAMES,
    stream=st.none() | NAMES,
    priority=st.integers(1, 9),
    bounds=st.builds(
        Bounds,
        max_latency=st.none() | CAPS,
        min_accuracy=st.none() | st.floats(min_value=0, max_value=1),
        max_energy=st.none() | CAPS,
    ),
)


def columns(trace: Trace) -> Requests:
    times = np.array([arrival.time for arrival in trace])
    return Requests(times, np.arange(len(trace)), trace.arrivals)


def write(folder: Path, text: str) -> Path:
    file = folder / "trace.csv"
    file.write_bytes(text.encode())
    return file


def refusal(folder: Path, text: str) -> str:
    file = write(folder, text)
    with pytest.raises(TraceError) as caught:
        read_trace(file)
    assert str(caught.value).startswith(str(file))
    return str(caught.value)[len(str(file)) :]


@given(st.lists(ARRIVALS, max_size=20))
def test_what_is_written_is_read_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, arrivals: list[Arrival]
) -> None:
    trace = Trace(tuple(sorted(arrivals, key=lambda arrival: arrival.time)))
    file = tmp_path_factory.mktemp("trace") / "trace.csv"
    columns(trace).write(file)
    assert read_trace(file) == trace


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_trace_or_a_trace_error(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    file = tmp_path_factory.mktemp("trace") / "trace.csv"
    for prefix in (b"", b"time_s\n", b"time_s,tenant,max_latency_ms,priority\n1,"):
        file.write_bytes(prefix + raw)
        try:
            read_trace(file)
        except TraceError as error:
            assert str(file) in str(error)


def test_units_names_and_defaults(tmp_path: Path) -> None:
    trace = read_trace(
        write(
            tmp_path,
            ",".join(COLUMNS)
            + "\n0,,,,,,,\n0.5,cam,resnet,cam-1,2,20.1,0.9,50\n0.5,,,,,,,\n\n1e1,x,,,,,,0.3\n",
        )
    )
    first, second, third, fourth = trace
    assert first == Arrival(0.0) and third == Arrival(0.5)
    bounds = Bounds(max_latency=0.0201, min_accuracy=0.9, max_energy=0.05)
    assert second == Arrival(0.5, "cam", "resnet", "cam-1", 2, bounds)
    assert fourth == Arrival(10.0, "x", bounds=Bounds(max_energy=0.0003))
    assert (len(trace), trace.arrivals[-1].time) == (4, 10.0)
    assert trace.tenants == ("cam", "default", "x")


def test_only_the_time_is_required_and_columns_come_in_any_order(tmp_path: Path) -> None:
    assert read_trace(write(tmp_path, "time_s\n")) == Trace(())
    swapped = read_trace(write(tmp_path, "\ufefftenant,time_s\r\na,1\r\nb,2\r\n"))
    assert swapped == Trace((Arrival(1.0, "a"), Arrival(2.0, "b")))


def test_columns_that_say_nothing_are_not_written(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    columns(Trace((Arrival(0.25), Arrival(1.0, bounds=Bounds(max_latency=0.02))))).write(file)
    assert file.read_text() == "time_s,max_latency_ms\n0.25,\n1.0,20\n"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "no header"),
        ("tenant\nx\n", 1, "time_s is missing"),
        ("time_s,color\n", 1, "unknown column 'color'; known: time_s, tenant"),
        ("time_s,tenant,tenant\n", 1, "tenant is given twice"),
        ("time_s,tenant\n1,a\n2\n", 3, "1 fields; the header has 2"),
        ("time_s\n1\n2,a\n", 3, "2 fields; the header has 1"),
        ("time_s,tenant\n2,a\n\n1.5,a\n", 4, "column time_s: 1.5 s is before the 2.0 s"),
        ("time_s\n-1e-9\n", 2, "column time_s: time_s is -1e-09; it must be finite and at least 0"),
        ("time_s\n0\nnan\n", 3, "column time_s: time_s is nan"),
        ("time_s\ninf\n", 2, "column time_s: time_s is inf"),
        ("time_s\n1_000\n", 2, "column time_s: time_s must be a number, not '1_000'"),
        ("time_s\n12:30\n", 2, "column time_s: time_s must be a number, not '12:30'"),
        ("time_s,tenant\n,a\n", 2, "column time_s: it is empty"),
        ("time_s,tenant\n1,a b\n", 2, "column tenant: tenant must be 1 to 64"),
        ("time_s,model\n1,$\n", 2, "column model: model must be"),
        ("time_s,stream\n1,é\n", 2, "column stream: stream must be"),
        ("time_s,priority\n1,0\n", 2, "column priority: priority is 0; it must be from 1 to 9"),
        ("time_s,priority\n1,5.0\n", 2, "column priority: priority must be a whole number"),
        (
            "time_s,max_latency_ms\n1,0\n",
            2,
            "column max_latency_ms: max_latency_ms must be above 0",
        ),
        ("time_s,max_latency_ms\n1,fast\n", 2, "column max_latency_ms: max_latency_ms must be a"),
        (
            "time_s,max_latency_ms\n1,5e-324\n",
            2,
            "column max_latency_ms: max_latency must be above 0",
        ),
        ("time_s,min_accuracy\n1,90\n", 2, "column min_accuracy: min_accuracy is 90; it is a fr"),
        ("time_s,max_energy_mj\n1,-3\n", 2, "column max_energy_mj: max_energy_mj must be above 0"),
        ("time_s,max_energy_mj\n1,inf\n", 2, "column max_energy_mj: max_energy_mj is inf"),
        ('time_s,tenant\n1,"a\n', 2, "it is not a CSV"),
        ("time_s,tenant\n1," + "a" * 200_000 + "\n", 2, "it is not a CSV"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, line: int, said: str) -> None:
    assert refusal(tmp_path, text).startswith(f", line {line}: ")
    assert said in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("time_s;tenant\n0,5;a\n", 1, "write commas"),
        ("time_s\n1;a\n", 2, "write commas"),
        ("time_s,tenant\n1;a\n", 2, "write commas"),
        ("time_s\ttenant\n1\ta\n", 1, "write commas"),
        ("time_s, tenant\n1,a\n", 1, "leave out the space beside the comma"),
        ("time_s,tenant\n1, a\n", 2, "leave out the space beside the comma"),
        ("time_s,tenant\n1,a \n", 2, "leave out the space beside the comma"),
    ],
)
def test_a_separator_that_is_no_bare_comma_gets_a_hint(
    tmp_path: Path, text: str, line: int, hint: str
) -> None:
    said = refusal(tmp_path, text)
    assert said.startswith(f", line {line}: ")
    assert hint in said


def test_spaces_inside_a_field_get_no_hint(tmp_path: Path) -> None:
    assert "comma" not in refusal(tmp_path, "time_s,tenant\n1,a b\n")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"nothing\.csv: it cannot be read"):
        read_trace(tmp_path / "nothing.csv")
    file = tmp_path / "trace.csv"
    file.write_bytes(b"time_s\n\xff\xfe\n")
    with pytest.raises(TraceError, match="utf-8"):
        read_trace(file)
    assert ERRORS_BY_CODE["trace_invalid"] is TraceError


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"time": -1.0}, "time"),
        ({"time": math.nan}, "time"),
        ({"time": math.inf}, "time"),
        ({"time": 0.0, "tenant": ""}, "tenant"),
        ({"time": 0.0, "model": "a b"}, "model"),
        ({"time": 0.0, "stream": ""}, "stream"),
        ({"time": 0.0, "priority": 10}, "priority"),
    ],
)
def test_an_arrival_is_checked_where_it_is_made(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Arrival(**given)
    assert caught.value.field == field


def test_a_trace_ascends() -> None:
    with pytest.raises(InvalidInput, match=r"arrival 2 is at 0.5 s, before the 1.0 s"):
        Trace((Arrival(1.0), Arrival(1.0), Arrival(0.5)))
