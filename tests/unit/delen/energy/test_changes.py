"""What energy accounting publishes."""

from __future__ import annotations

from dataclasses import replace

from delen.core.energy_status import ConstraintStatus, ModeStatus
from delen.core.events import EventBus
from delen.energy.changes import EnergyChanges
from power.sources.sampler import SourceState

MODE = ModeStatus(0, "MAXN", "", False, ())
CAP = ConstraintStatus("watt_cap", "W", 9.0, 8.0, 1.0, 0.0, False, "below it")
OK = SourceState("ok", 0.0, None, None, 0)


def test_what_is_as_before_is_not_published_and_what_is_not_is_once() -> None:
    bus = EventBus()
    reader, changes = bus.read(lambda: None), EnergyChanges(bus, "ina3221")
    bound = replace(CAP, binding=True, explanation="it is at the cap")
    hot = replace(MODE, name="15W", throttling=("the board is hot",))
    silent = replace(OK, status="degraded", problem="no such file")
    changes.look(OK, MODE, [CAP])
    assert reader.take() == (0, [])
    for _ in range(2):
        changes.look(silent, hot, [bound])
    for _ in range(2):
        changes.look(OK, hot, [CAP])
    changes.look(None, hot, [])
    told = [(each.name, dict(each.fields)) for each in reader.take()[1]]
    assert told == [
        ("source_degraded", {"source": "ina3221", "problem": "no such file"}),
        ("mode_changed", {"mode": "15W"}),
        ("throttling_changed", {"problem": "the board is hot"}),
        ("constraint_binds", {"constraint": "watt_cap", "problem": "it is at the cap"}),
        ("source_recovered", {"source": "ina3221"}),
        ("constraint_relaxed", {"constraint": "watt_cap", "problem": "below it"}),
    ]


def test_a_limit_that_is_taken_away_while_it_binds_binds_no_more() -> None:
    bus = EventBus()
    reader, changes = bus.read(lambda: None), EnergyChanges(bus, None)
    changes.look(None, MODE, [replace(CAP, binding=True)])
    for _ in range(2):
        changes.look(None, MODE, [])
    changes.look(None, MODE, [CAP])
    told = [(each.name, each.fields["constraint"]) for each in reader.take()[1]]
    assert told == [("constraint_binds", "watt_cap"), ("constraint_relaxed", "watt_cap")]
