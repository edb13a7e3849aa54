"""Streams in the simulator: the same rules as the SDK's, on links that stall and daemons that take
their time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from delen.errors import ConfigError
from delen.simulate.device import DeviceSettings
from delen.simulate.model import SimulatedModel
from delen.simulate.run import RunSettings
from delen.simulate.streams.bandwidth import constant
from delen.simulate.streams.clairvoyant import keepable, upper_bound
from delen.simulate.streams.light import play_light
from delen.simulate.streams.link import Link, LinkSettings
from delen.simulate.streams.play import play_streams
from delen.simulate.streams.stream import Stream, StreamSettings
from delen.simulate.streams.summary import summarise
from policies.client.api import FrameChoice, FrameOption, FrameReport, StreamView
from policies.client.fixed import Fixed
from policies.dispatch.value import Value
from policies.plugins import CLIENT_CONTROLLERS, make_controller, plugin_names

from .conftest import OPTIONS
from .test_link import steps

Make = Callable[..., Stream]


class Nothing:
    """Drops every frame."""

    name = "nothing"

    def choose(self, view: StreamView) -> FrameChoice | None:
        return None

    def ended(self, report: FrameReport) -> None:
        raise AssertionError


def test_a_frame_is_answered_after_all_its_times(make_stream: Make) -> None:
    (frames,) = play_light([make_stream(frames=3)], 0, noise=0.0)
    # encoding, 10.4 kB at 1 MB/s, two ways, the daemon
    assert frames.latency.tolist() == pytest.approx([0.001 + 0.0104 + 0.010 + 0.002] * 3, rel=1e-5)
    assert frames.effective(0.1) == pytest.approx(0.6)
    assert frames.in_time(0.02).sum() == 0


def test_late_answers_have_accuracy_0(make_stream: Make) -> None:
    (frames,) = play_light([make_stream(frames=3, deadline=0.023)], 0, noise=0.0)
    assert not np.isnan(frames.answered).any()
    assert frames.effective(0.023) == 0.0


def test_frames_faster_than_the_link_are_replaced_by_newer_ones(make_stream: Make) -> None:
    stream = make_stream(Fixed(1), frames=90, in_flight=1)
    (frames,) = play_light([stream], 0, noise=0.0)
    # each takes 56 ms: every second frame is replaced, and what waited is sent at once
    assert frames.dropped["replaced"] == pytest.approx(37, abs=4)
    sent = frames.sent[~np.isnan(frames.sent)]
    assert np.diff(sent).min() > 0.05
    assert np.diff(frames.sent[frames.index >= 0]).min() > 0


def test_frames_a_thousand_a_second_end_once_each(make_stream: Make) -> None:
    stream = make_stream(Fixed(1), frames=2000, fps=1000.0, in_flight=4)
    (frames,) = play_light([stream], 0)
    answered = int((~np.isnan(frames.answered)).sum())
    overtaken = frames.dropped.get("overtaken", 0)
    assert answered - overtaken + sum(frames.dropped.values()) == 2000


@pytest.mark.parametrize("name", plugin_names(CLIENT_CONTROLLERS))
def test_every_controller_outlasts_a_dead_link_of_30_seconds(name: str, make_stream: Make) -> None:
    link = LinkSettings(steps(*(8,) * 5, *(0,) * 30, *(8,) * 25), delay=0.005)
    stream = make_stream(make_controller(name), link, frames=1700)
    (frames,) = play_light([stream], 0)
    in_time = frames.in_time(0.1)
    dead = (frames.captured > 5.1) & (frames.captured < 34.8)
    assert not in_time[dead].any()
    assert frames.dropped["unanswered"] > 0
    back = frames.captured > 40
    assert in_time[back].mean() > (0.95 if name == "expected" else 0.3)


def test_a_controller_may_drop_everything(make_stream: Make) -> None:
    (frames,) = play_light([make_stream(Nothing(), frames=5)], 0)
    assert frames.dropped == {"controller": 5}
    assert frames.effective(0.1) == 0.0
    assert frames.switches == 0


def test_the_same_seed_is_the_same_run(make_stream: Make) -> None:
    link = LinkSettings(constant(8.0), 0.005, jitter=0.002, loss=0.01, variation=0.2, fades=0.1)

    def play(seed: int) -> list[float]:
        stream = make_stream(make_controller("expected"), link, seed, frames=300, spread=0.1)
        return np.nan_to_num(play_light([stream], seed)[0].answered).tolist()  # type: ignore

    assert play(1) == play(1)
    assert play(1) != play(2)


def test_streams_share_the_daemon(make_stream: Make) -> None:
    slow = tuple(
        FrameOption(option.size, option.payload, 0.02, option.accuracy, 0) for option in OPTIONS
    )
    alone, *_ = play_light([make_stream(options=slow)], 0, noise=0.0)
    crowd = play_light([make_stream(options=slow) for _ in range(3)], 0, noise=0.0)
    assert crowd[2].latency[0] == pytest.approx(alone.latency[0] + 0.04)


def test_no_controller_exceeds_the_bound(make_stream: Make) -> None:
    link = LinkSettings(
        steps(8, 3, 12, 1, 20), 0.005, jitter=0.002, loss=0.01, variation=0.2, fades=0.1
    )
    for name in plugin_names(CLIENT_CONTROLLERS):
        stream = make_stream(make_controller(name), link, 4, frames=300, spread=0.1)
        settings, footage = stream.settings, stream.footage
        (frames,) = play_light([stream], 4)
        other = Link(link, settings.end, 4)
        bound = upper_bound(settings, other, footage, least=0.6)
        assert frames.effective(0.1) <= bound
        assert keepable(settings, other, footage).mean() > 0.8


def test_the_bound_knows_what_a_link_carries(make_stream: Make) -> None:
    # 40 kB takes 40 ms of each 33, so at most 5 of 6 are large; 10 kB always fits
    stream = make_stream(frames=60)
    bound = upper_bound(stream.settings, stream.way, stream.footage)
    share = (1 / 30 - 0.0104) / (0.0404 - 0.0104)
    assert bound == pytest.approx(0.6 + 0.2 * share, abs=0.02)
    assert keepable(stream.settings, stream.way, stream.footage).all()


@pytest.fixture
def models(make_model: Callable[..., SimulatedModel]) -> list[SimulatedModel]:
    return [make_model("m@128x128"), make_model("m@256x256")]


def play_both(
    streams: list[Stream], models: list[SimulatedModel], seed: int = 3, **device: Any
) -> Any:
    settings = RunSettings(DeviceSettings(noise=False, **device), seed=seed)
    return play_streams(streams, models, Value(), Value(), settings)


def test_frames_pass_through_the_daemon(make_stream: Make, models: list[SimulatedModel]) -> None:
    played = play_both([make_stream(frames=300)], models)
    (frames,) = played.frames
    assert played.failures == ()
    assert frames.in_time(0.1).all()
    # a segment of 10 ms for each exit
    deep = frames.exit == 2
    assert deep.mean() > 0.2
    assert frames.latency[deep].min() == pytest.approx(0.001 + 0.0104 + 0.010 + 0.030, abs=0.001)
    assert frames.effective(0.1) == pytest.approx(0.8, abs=0.06)


def test_no_run_is_better_than_its_bound(make_stream: Make, models: list[SimulatedModel]) -> None:
    options = tuple(
        replace(option, accuracy=model.planner.accuracies[-1])
        for option, model in zip(OPTIONS, models, strict=True)
    )
    for seed in range(5):
        stream = make_stream(frames=10, options=options, seed=seed)
        (frames,) = play_both([stream], models, seed=seed).frames
        bound = upper_bound(stream.settings, stream.way, stream.footage, least=0.0)
        assert frames.effective(0.1) <= bound


def test_the_bound_of_a_controller_stops_the_daemon_early(
    make_stream: Make, models: list[SimulatedModel]
) -> None:
    class Hurried(Fixed):
        def choose(self, view: StreamView) -> FrameChoice:
            return FrameChoice(0, max_latency=0.022)

    (frames,) = play_both([make_stream(Hurried(), frames=60)], models).frames
    assert max(frames.exit.tolist()) == 1


def test_sizes_of_the_stream_and_of_the_model_must_be_the_same(
    make_stream: Make, models: list[SimulatedModel]
) -> None:
    with pytest.raises(ConfigError, match="2 sizes; the model has 1"):
        play_both([make_stream()], models[:1])


def test_the_summary_has_figures_by_stream(make_stream: Make, models: list[SimulatedModel]) -> None:
    streams = [make_stream(Fixed(1), name="a", frames=60), make_stream(name="b", frames=30)]
    played = play_both(streams, models)
    summary = summarise("fixed", "value", [each.settings for each in streams], played, 0.9)
    assert summary["requests"] == 90
    assert summary["upper_bound"] == 0.9
    assert summary["streams"]["b"]["sizes"] == {"128x128": 30, "256x256": 0}
    assert summary["streams"]["a"]["switches"] == 0
    assert set(summary["latency_ms"]) == {"p50", "p95", "p99"}
    counted = summary["answered"] + sum(summary["dropped"].values())
    assert counted - summary["dropped"].get("overtaken", 0) == 90


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"fps": 0.0}, "fps"),
        ({"deadline": -1.0}, "deadline"),
        ({"options": ()}, "options"),
        ({"options": OPTIONS[::-1]}, "options"),
    ],
)
def test_wrong_streams_are_named(given: dict[str, Any], named: str, make_stream: Make) -> None:
    with pytest.raises(ValueError, match=named):
        make_stream(**given)


def test_as_many_frames_are_in_flight_as_a_deadline_has_and_another() -> None:
    settings = StreamSettings("camera", OPTIONS, 30.0, 0.1, 10)
    assert settings.most_in_flight == 4
