"""The bus of events."""

from __future__ import annotations

from delen.core.events import KEPT, EventBus


def nothing() -> None: ...


def test_a_reader_gets_what_happens_from_then_on_once() -> None:
    bus, woken = EventBus(), []
    bus.publish("draining")
    reader = bus.read(lambda: woken.append(1))
    assert reader.take() == (0, [])
    bus.publish("model_ready", model="m")
    bus.publish("model_failed", model="m", problem="gone")
    lost, events = reader.take()
    assert lost == 0 and len(woken) == 2
    assert [(each.name, each.fields["model"]) for each in events] == [
        ("model_ready", "m"),
        ("model_failed", "m"),
    ]
    assert reader.take() == (0, [])
    reader.close()
    bus.publish("draining")
    assert len(woken) == 2


def test_a_slow_reader_loses_events_and_learns_how_many() -> None:
    bus = EventBus()
    reader = bus.read(nothing)
    for index in range(KEPT + 10):
        bus.publish("mode_changed", mode=str(index))
    lost, events = reader.take()
    assert lost == 10 and len(events) == KEPT
    assert events[0].fields["mode"] == "10"
    bus.publish("draining")
    assert [each.name for each in reader.take()[1]] == ["draining"]


def test_who_comes_back_reads_on_after_the_last_id() -> None:
    bus = EventBus()
    reader = bus.read(nothing)
    for index in range(5):
        bus.publish("mode_changed", mode=str(index))
    _, events = reader.take()
    again = bus.read(nothing, bus.id_of(events[2]))
    assert [each.fields["mode"] for each in again.take()[1]] == ["3", "4"]


def test_an_id_of_another_run_or_of_no_run_reads_all_that_is_kept() -> None:
    bus = EventBus()
    bus.publish("mode_changed", mode="a")
    past = bus.id_of(bus.read(nothing, "x-1").take()[1][0]).replace("-1", "-99")
    for last_id in ("abcdef12-7", "nonsense", "-", "abc-9999999999999999999999", "abc-²"):
        assert len(bus.read(nothing, last_id).take()[1]) == 1, last_id
    assert bus.read(nothing, past).take() == (0, [])
