from __future__ import annotations

from math import inf
from typing import Any

import pytest

from delen.simulate.device import DeviceSettings
from delen.simulate.host import Host


def make(slowness: float = 1.0, **how: Any) -> Host:
    return Host(DeviceSettings(**how), lambda now: slowness)


def test_it_does_one_thing_after_the_other() -> None:
    host = make()
    assert host.occupy(1.0, 0.5) == 1.5
    assert host.occupy(1.2, 0.5) == 2.0, "it was busy"
    assert host.occupy(3.0, 0.5) == host.free == 3.5, "it waited"


def test_in_a_slow_time_all_takes_longer() -> None:
    assert make(2.0).occupy(1.0, 0.5) == 2.0


def test_a_crowd_is_read_and_replied_to_faster() -> None:
    host = make(front=(0.5, 0.4), crowded=(0.2, 0.1))
    assert host.read(1.0, inf) == pytest.approx(1.5)
    host.occupy(1.5, 0.1)
    assert host.read(1.0, inf) == pytest.approx(1.8)
    host.answer(2.0, 0.0)
    host.answer(2.0, 0.0)
    host.reply(inf)
    assert host.free == pytest.approx(2.4)
    host.reply(inf)
    assert host.free == pytest.approx(2.5)


def test_replies_wait_from_when_their_answers_were_written() -> None:
    host = make(front=(0.0, 0.3))
    assert host.next_reply == inf
    host.answer(1.0, 0.2)
    host.answer(1.0, 0.2)
    assert host.next_reply == pytest.approx(1.2)
    host.reply(inf)
    assert host.next_reply == pytest.approx(1.4)


def test_without_a_front_end_there_are_no_replies() -> None:
    host = make()
    host.answer(1.0, 0.2)
    assert host.next_reply == inf


def test_an_ended_batch_is_passed_by_as_many_as_there_are_readers() -> None:
    host = make(front=(1.0, 1.0), readers=2)
    host.answer(0.0, 0.0)
    host.read(0.0, ended=0.5)
    assert host.free == 1.0
    host.read(0.0, ended=0.5)
    assert not host.is_overdue(0.5), "it had not ended when the first was begun"
    host.reply(ended=0.5)
    assert host.is_overdue(0.5)
    host.decide(0.5, 0.1)
    assert not host.is_overdue(0.6), "another batch"


def test_a_batch_that_runs_is_not_overdue() -> None:
    host = make(front=(1.0, 0.0), readers=1)
    host.read(0.0, ended=0.0)
    assert host.is_overdue(0.0)
    assert not host.is_overdue(1.5)
