from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.core.bounds import Bounds, Options
from delen.core.guarantee import Feedback, GuaranteeStatus
from delen.core.plan import OperatingPoint, Preview
from delen.core.result import (
    AccuracyOutcome,
    EnergyOutcome,
    LatencyOutcome,
    Prediction,
    Receipt,
    Result,
)
from delen.errors import (
    ERRORS_BY_CODE,
    BatchTooLarge,
    BudgetExhausted,
    DelenError,
    InfeasibleBound,
    InvalidInput,
    MissingExtra,
    Nearest,
    Overloaded,
    PowerError,
    UnknownField,
)
from delen.wire import answers
from delen.wire.errors import Error, read_error
from delen.wire.message import Message, read_answer, write
from delen.wire.requests import InferFields, NoFields

BOUND_FIELDS = ("max_latency_ms", "min_accuracy", "max_energy_mj")
OPTION_FIELDS = ("tenant", "stream", "priority", "top_k", "on_infeasible", "probabilities")

amounts = st.integers(0, 10**9).map(lambda quarters: quarters / 4096)
"""Numbers that ms and back leave as they are, so that round trips can be compared exactly."""
maybe_amounts = st.none() | amounts
fractions = st.floats(0, 1)
truths = st.none() | st.booleans()
labels = st.none() | st.text()

results = st.builds(
    Result,
    model=st.text(),
    version=st.text(),
    request_id=st.text(),
    predictions=st.lists(
        st.builds(Prediction, st.integers(0, 999), labels, fractions), min_size=1, max_size=4
    ).map(tuple),
    probabilities=st.none()
    | st.lists(st.floats(0, 1, width=32), min_size=1, max_size=5).map(
        lambda values: np.asarray(values, np.float32)
    ),
    exit=st.integers(0, 4),
    exits=st.just(5),
    reason=st.sampled_from(
        ["confident", "planned_exit", "latency", "energy", "final", "cancelled", "policy"]
    ),
    receipt=st.builds(
        Receipt,
        st.builds(LatencyOutcome, maybe_amounts, amounts, amounts, amounts, truths),
        st.builds(
            AccuracyOutcome, st.none() | fractions, st.none() | fractions, fractions,
            st.none() | fractions, truths,
        ),
        st.builds(
            EnergyOutcome, maybe_amounts, maybe_amounts, maybe_amounts,
            st.sampled_from(["attributed", "estimated", "unknown"]), labels, labels, truths,
        ),
    ),
    tenant=st.text(),
    stream=labels,
)  # fmt: skip


def approximately(value: Any) -> Any:
    """``value`` with its floats to be compared up to the rounding of a change of units."""
    if isinstance(value, float):
        return pytest.approx(value, rel=1e-12, abs=1e-300)
    if isinstance(value, dict):
        return {key: approximately(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(approximately(item) for item in value)
    return value


def plain(message: Message) -> Any:
    """``message`` as another JSON reader has it."""
    return json.loads(write(message))


@given(results)
def test_a_result_comes_back_as_it_was_sent(result: Result) -> None:
    back = read_answer(answers.Result, write(answers.Result.of(result))).to(Result)
    sent, received = dataclasses.asdict(result), dataclasses.asdict(back)
    probabilities = sent.pop("probabilities"), received.pop("probabilities")
    assert received == approximately(sent)
    assert back.receipt.met == result.receipt.met
    if probabilities[0] is None:
        assert probabilities[1] is None
    else:
        assert probabilities[1].dtype == np.float32
        np.testing.assert_array_equal(*probabilities)


def example_result() -> Result:
    return Result(
        model="m",
        version="1",
        request_id="r",
        predictions=(Prediction(3, "cat", 0.91),),
        probabilities=None,
        exit=2,
        exits=5,
        reason="confident",
        receipt=Receipt(
            LatencyOutcome(0.02, 0.0061, 0.0004, 0.0058, True),
            AccuracyOutcome(0.85, 0.87, 0.9, 0.95, True),
            EnergyOutcome(None, 0.031, 0.0302, "attributed", "ina3221", "module_input", None),
        ),
        tenant="default",
        stream=None,
    )


def test_an_answer_speaks_milliseconds_and_millijoules() -> None:
    receipt = plain(answers.Result.of(example_result()))["receipt"]
    assert receipt["latency_ms"] == approximately(
        {"bound": 20.0, "value": 6.1, "queue": 0.4, "predicted": 5.8, "met": True}
    )
    assert receipt["energy_mj"] == approximately(
        {
            "bound": None,
            "value": 31.0,
            "predicted": 30.2,
            "kind": "attributed",
            "source": "ina3221",
            "scope": "module_input",
            "met": None,
        }
    )
    assert receipt["accuracy"]["bound"] == 0.85
    assert receipt["met"] is True


def test_probabilities_are_sent_only_where_they_were_asked_for() -> None:
    sent = write(answers.Result.of(example_result()))
    assert "probabilities" not in json.loads(sent)
    assert read_answer(answers.Result, sent).to(Result).probabilities is None


def test_a_receipt_is_met_when_every_bound_that_was_set_was_kept() -> None:
    def met(latency: bool | None, accuracy: bool | None, energy: bool | None) -> bool:
        bounds = [None if kept is None else 0.5 for kept in (latency, accuracy, energy)]
        return Receipt(
            LatencyOutcome(bounds[0], 0.0, 0.0, 0.0, latency),
            AccuracyOutcome(bounds[1], None, 0.5, None, accuracy),
            EnergyOutcome(bounds[2], None, None, "unknown", None, None, energy),
        ).met

    assert met(None, None, None)
    assert met(True, None, True)
    assert not met(True, False, None)
    assert not met(None, None, False)


def test_a_bound_on_energy_that_is_unknown_is_not_known_to_be_met() -> None:
    receipt = Receipt(
        LatencyOutcome(None, 0.0, 0.0, 0.0, None),
        AccuracyOutcome(None, None, 0.5, None, None),
        EnergyOutcome(0.1, None, None, "unknown", None, None, None),
    )
    assert not receipt.met


def test_fields_that_a_newer_daemon_adds_are_let_be() -> None:
    document = plain(answers.Result.of(example_result()))
    document["weather"] = "fine"
    document["receipt"]["latency_ms"]["network"] = 3
    assert read_answer(answers.Result, json.dumps(document).encode()).to(Result) == example_result()


def test_numbers_of_numpy_are_written() -> None:
    odd = dataclasses.replace(
        example_result(),
        predictions=(Prediction(np.int64(3), "cat", np.float32(0.5)),),  # type: ignore[arg-type]
    )
    assert plain(answers.Result.of(odd))["predictions"] == [
        {"index": 3, "label": "cat", "probability": 0.5}
    ]


previews = st.builds(
    Preview,
    model=st.text(),
    feasible=st.booleans(),
    problem=labels,
    nearest=st.none() | st.builds(Nearest, maybe_amounts, st.none() | fractions, maybe_amounts),
    exit=st.integers(0, 4),
    threshold=st.none() | fractions,
    limited_by=st.sampled_from(["latency", "energy", "depth", "price"]),
    latency=amounts,
    energy=maybe_amounts,
    expected_energy=maybe_amounts,
    accuracy=fractions,
    guarantee=st.none() | fractions,
    points=st.lists(
        st.builds(
            OperatingPoint, st.integers(0, 4), fractions, amounts, maybe_amounts, st.booleans()
        ),
        max_size=3,
    ).map(tuple),
    price=fractions | st.just(math.inf),
)


@given(previews)
def test_a_preview_comes_back_as_it_was_sent(preview: Preview) -> None:
    back = read_answer(answers.Plan, write(answers.Plan.of(preview))).to(Preview)
    assert dataclasses.asdict(back) == approximately(dataclasses.asdict(preview))


def example_of(kind: type[DelenError]) -> DelenError:
    if issubclass(kind, InfeasibleBound):
        return kind("too tight", Nearest(0.02, 0.85, None))
    if issubclass(kind, MissingExtra):
        return kind("Pillow", "daemon")
    if issubclass(kind, BatchTooLarge):
        return kind("too many", 400)
    if issubclass(kind, (BudgetExhausted, Overloaded)):
        return kind("later", 1.5)
    if issubclass(kind, PowerError):
        return kind("no reading", "join the group i2c")
    return kind("wrong", "top_k") if issubclass(kind, InvalidInput) else kind("wrong")


@pytest.mark.parametrize("kind", sorted(ERRORS_BY_CODE.values(), key=lambda kind: kind.code))
def test_every_error_comes_back_with_its_fields(kind: type[DelenError]) -> None:
    error = example_of(kind)
    back = read_error(write(Error.of(error)), kind.status)
    assert str(back) == str(error)
    if kind is MissingExtra:  # it is the daemon's extra that is missing, not the client's
        assert type(back) is DelenError
        return
    assert type(back) is kind
    for name, value in vars(error).items():
        assert getattr(back, name) == value


@pytest.mark.parametrize("wait", [math.inf, math.nan])
def test_a_wait_that_nobody_knows_is_said_as_a_finite_one(wait: float) -> None:
    sent = read_error(write(Error.of(Overloaded("later", wait))), 503)
    assert isinstance(sent, Overloaded)
    assert 1 <= sent.retry_after < math.inf


def test_an_infeasible_bound_speaks_milliseconds_and_millijoules() -> None:
    error = Error.of(InfeasibleBound("too tight", Nearest(0.02, 0.85, 0.05)))
    assert plain(error) == {
        "error": "too tight",
        "code": "infeasible_bound",
        "nearest": {"max_latency_ms": 20.0, "min_accuracy": 0.85, "max_energy_mj": 50.0},
    }


@pytest.mark.parametrize("raw", [b"", b"<html>", b"null", b"[]", b'"x"', b"{}", b'{"error": 3}'])
def test_what_is_no_error_of_the_daemon_is_still_an_error(raw: bytes) -> None:
    error = read_error(raw, 502)
    assert type(error) is DelenError
    assert "502" in str(error)


def test_an_error_with_an_unknown_code_keeps_its_sentence() -> None:
    assert str(read_error(b'{"error": "odd", "code": "from_the_future"}', 418)) == "odd"


def test_bounds_are_read_in_milliseconds_and_millijoules() -> None:
    fields = {"max_latency_ms": 20, "min_accuracy": 0.85, "max_energy_mj": 50}
    bounds = InferFields.read(fields).bounds()
    assert bounds == Bounds(max_latency=0.02, min_accuracy=0.85, max_energy=0.05)
    assert InferFields.read(dict.fromkeys(BOUND_FIELDS)).bounds() == Bounds()


@pytest.mark.parametrize("name", BOUND_FIELDS)
@pytest.mark.parametrize("value", ["5", True, -1, float("nan"), [], {}, 10**400])
def test_a_wrong_bound_is_refused_by_its_wire_name(name: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=name) as caught:
        InferFields.read({name: value}).bounds()
    assert caught.value.field == name


def test_options_left_out_or_null_are_the_defaults() -> None:
    assert InferFields.read({}).options() == Options()
    assert InferFields.read(dict.fromkeys(OPTION_FIELDS)).options() == Options()
    assert InferFields.read({"priority": 2, "max_latency_ms": 5}).options() == Options(priority=2)


@given(
    st.builds(
        Bounds,
        max_latency=st.none() | st.floats(1e-6, 1e6),
        min_accuracy=st.none() | fractions,
        max_energy=st.none() | st.floats(1e-6, 1e6),
    ),
    st.builds(
        Options,
        tenant=st.sampled_from(["default", "camera"]),
        stream=st.sampled_from([None, "s1"]),
        priority=st.integers(1, 9),
        top_k=st.integers(1, 10),
        on_infeasible=st.sampled_from(["reject", "best_effort"]),
        probabilities=st.booleans(),
    ),
)
def test_a_request_comes_back_from_its_fields_and_from_its_query(
    bounds: Bounds, options: Options
) -> None:
    fields = InferFields.asking(bounds, options)
    for read in (InferFields.read(plain(fields)), InferFields.read_query(fields.query())):
        assert dataclasses.asdict(read.bounds()) == approximately(dataclasses.asdict(bounds))
        assert read.options() == options


def test_a_request_sends_only_what_is_set() -> None:
    assert InferFields.asking(Bounds(), Options()).query() == {}
    assert InferFields.asking(Bounds(max_energy=0.5)).query() == {"max_energy_mj": "500.0"}


def test_a_query_is_read_by_what_its_fields_are() -> None:
    query = {"max_latency_ms": "2e1", "top_k": "3", "tenant": "12", "probabilities": "true"}
    read = InferFields.read_query(query)
    assert read.bounds() == Bounds(max_latency=0.02)
    assert read.options() == Options(top_k=3, tenant="12", probabilities=True)
    assert type(read.top_k) is int


@pytest.mark.parametrize("name", [*BOUND_FIELDS, "priority", "top_k"])
@pytest.mark.parametrize("text", ["", "fast", "5ms", "1,5", "0x10"])
def test_a_number_in_a_query_that_is_none_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(InvalidInput, match=name) as caught:
        InferFields.read_query({name: text})
    assert caught.value.field == name


@pytest.mark.parametrize(
    ("name", "text"),
    [("max_latency_ms", "nan"), ("max_energy_mj", "inf"), ("min_accuracy", "9" * 400)],
)
def test_a_number_in_a_query_that_is_not_finite_is_refused(name: str, text: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        InferFields.read_query({name: text}).bounds()


@pytest.mark.parametrize("text", ["05", "+5", " 5"])
def test_a_whole_number_in_a_query_may_be_written_as_apps_write_it(text: str) -> None:
    assert InferFields.read_query({"priority": text}).options() == Options(priority=5)


@pytest.mark.parametrize("text", ["2.0", "1e0"])
def test_a_fraction_in_a_query_is_not_a_whole_number(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        InferFields.read_query({"top_k": text})
    assert caught.value.field == "top_k"


@pytest.mark.parametrize("text", ["yes", "1", "0", "True", ""])
def test_a_truth_value_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="probabilities"):
        InferFields.read_query({"probabilities": text})


def test_an_unknown_field_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UnknownField, match="known: max_latency_ms, min_accuracy") as caught:
        InferFields.read({"top_k": 1, "c": 2})
    assert caught.value.field == "c"
    with pytest.raises(UnknownField, match="known: none") as caught:
        NoFields.read({"a": 1})
    assert caught.value.field == "a"


def test_a_field_is_named_once_in_body_and_query() -> None:
    body = InferFields(top_k=2)
    assert body.joined(InferFields(priority=3)) == InferFields(top_k=2, priority=3)
    query = InferFields.read_query({"max_latency_ms": "5"})
    with pytest.raises(InvalidInput) as caught:
        InferFields.read({"max_latency_ms": 6}).joined(query)
    assert caught.value.field == "max_latency_ms"


@pytest.mark.parametrize("source", ["labels", None])
def test_feedback_comes_back_as_it_was_sent(source: Any) -> None:
    status = GuaranteeStatus(True, source, 40, 3, 0.1, 1.5, 0.05)
    feedback = Feedback(2, 1, 3, ("a", "b"), status)
    sent = plain(answers.Feedback.of(feedback))
    sent["guarantee"]["newer"] = 1
    received = read_answer(answers.Feedback, json.dumps(sent).encode())
    assert received.to(Feedback) == feedback
