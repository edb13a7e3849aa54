from __future__ import annotations

import argparse
from math import inf
from pathlib import Path

import pytest

from delen.commands.app_text import read_app
from delen.core.bounds import Bounds
from delen.simulate.apps import App, Mixed
from delen.simulate.arrivals import Bursts, Camera, Poisson, Recorded, Window


def one(bounds: Bounds) -> tuple[Mixed, ...]:
    return (Mixed(1.0, bounds),)


@pytest.mark.parametrize(
    ("text", "app"),
    [
        ("web:rate=5", App("web", Poisson(5.0))),
        ("a:b:rate=5", App("a:b", Poisson(5.0))),
        (
            "cam:rate=30, arrivals=camera, phase=1ms, jitter=9.3ms, streams=4",
            App("cam", Camera(30.0, 0.001, 0.0093), streams=4),
        ),
        (
            "phone:rate=5,arrivals=bursts,peak=2,share=0.4,dwell=1min",
            App("phone", Bursts(5.0, 2.0, 0.4, 60.0)),
        ),
        ("x:rate=5,from=1min,to=0.5h", App("x", Window(Poisson(5.0), 60.0, 1800.0))),
        ("x:rate=5,from=20s", App("x", Window(Poisson(5.0), 20.0, inf))),
        ("x:rate=5,to=20s", App("x", Window(Poisson(5.0), 0.0, 20.0))),
        (
            "x:rate=5,model=resnet:2,priority=8",
            App("x", Poisson(5.0), model="resnet:2", priority=8),
        ),
        (
            "x:max-energy=50mJ,rate=5,min-accuracy=0.9,max-latency=9.3ms",
            App(
                "x",
                Poisson(5.0),
                one(Bounds(max_latency=0.0093, min_accuracy=0.9, max_energy=0.05)),
            ),
        ),
        (
            "x:part=3,max-latency=20ms,rate=5,min-accuracy=0.9,part=0.5,max-latency=1s,part=1",
            App(
                "x",
                Poisson(5.0),
                (
                    Mixed(3.0, Bounds(max_latency=0.02, min_accuracy=0.9)),
                    Mixed(0.5, Bounds(max_latency=1.0)),
                    Mixed(1.0, Bounds()),
                ),
            ),
        ),
    ],
)
def test_an_app_is_what_its_keys_say(text: str, app: App) -> None:
    assert read_app(text) == app


def test_a_recording_has_its_own_rate_or_the_one_that_is_given(tmp_path: Path) -> None:
    file = tmp_path / "rates.txt"
    file.write_text("1\n0\n5.0\n")
    text = f"web:arrivals=recorded,record={file}"
    assert read_app(text).arrivals == Recorded(2.0, (1.0, 0.0, 5.0))
    given = read_app(f"{text},rate=10,step=1min")
    assert given.arrivals == Recorded(10.0, (1.0, 0.0, 5.0), 60.0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("1\nfast\n", "line 2: 'fast' must be a number of at least 0"),
        ("-1\n", "line 1: '-1' must be"),
        ("1\n\n2\n", "line 2: '' must be"),
        ("inf\n", "line 1: 'inf' must be"),
        ("0\n0\n", "must have a line with a rate above 0"),
        ("", "must have a line with a rate above 0"),
        (None, "cannot be read"),
    ],
)
def test_a_recording_that_is_none_is_named(tmp_path: Path, content: str | None, said: str) -> None:
    file = tmp_path / "rates.txt"
    if content is not None:
        file.write_text(content)
    with pytest.raises(argparse.ArgumentTypeError) as raised:
        read_app(f"web:arrivals=recorded,record={file}")
    assert str(raised.value).startswith(f"web: record: {file}") and said in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("camera", "'camera' must be NAME:KEY=VALUE,KEY=VALUE, such as camera:rate=30"),
        ("rate=30", "'rate=30' must be NAME:KEY=VALUE"),
        (":rate=3", "':rate=3' must be NAME:KEY=VALUE"),
        ("a b:rate=3", "a b: its name must be 1 to 64 letters"),
        ("c:rate=3,", "c: KEY=VALUE is missing before or behind a comma"),
        ("c:rate=3,colour=red", "c: unknown key 'colour'; known: rate, arrivals, peak"),
        ("c:rate", "c: rate has no value; write rate=VALUE"),
        ("c:rate=", "c: rate has no value"),
        ("c:priority=3", "c: rate is missing; give the requests a second, such as rate=30"),
        ("c:rate=3,rate=3", "c: rate is given twice; it may be given once"),
        ("c:rate=fast", "c: rate: 'fast' must be a number"),
        ("c:rate=0", "c: rate: 0 must be finite and above 0"),
        ("c:rate=nan", "c: rate: nan must be finite and above 0"),
        ("c:rate=3,arrivals=mmpp", "'mmpp' must be one of poisson, bursts, camera, recorded"),
        ("c:rate=3,jitter=1ms", "c: jitter goes with arrivals=camera; arrivals is poisson"),
        ("c:rate=3,arrivals=camera,step=1s", "c: step goes with arrivals=recorded"),
        ("c:rate=3,arrivals=camera,jitter=-1ms", "c: jitter: '-1ms' must be finite and at least 0"),
        ("c:rate=3,arrivals=bursts,peak=9", "c: peak is 9.0; bursts that fill 0.2 of the time"),
        ("c:rate=3,arrivals=bursts,share=1", "c: share is 1.0; it must be between 0 and 1"),
        ("c:rate=3,arrivals=bursts,dwell=0s", "c: dwell is 0.0; it must be finite and above 0"),
        ("c:arrivals=recorded,rate=3", "c: record is missing"),
        ("c:rate=3,from=20", "c: from: '20' must be a number with a unit (us, ms, s, min, h)"),
        ("c:rate=3,from=1..2s", "c: from: '1..2'"),
        ("c:rate=3,from=1e999s", "c: from: '1e999s' must be finite"),
        ("c:rate=3,from=9s,to=3s", "c: to is 3 s; it must be after from, which is 9 s"),
        ("c:rate=3,streams=0", "c: streams: '0' must be a whole number of at least 1"),
        ("c:rate=3,streams=1.5", "c: streams: '1.5' must be a whole number"),
        (f"{'c' * 63}:rate=3,streams=2", "streams: a stream's name must be 1 to 64 letters"),
        ("c:rate=3,priority=10", "c: priority: '10' must be a whole number from 1 to 9"),
        ("c:rate=3,model=a b", "c: model: it must be 1 to 64 letters"),
        ("c:rate=3,max-latency=20", "c: max-latency: '20' must be a number with a unit"),
        ("c:rate=3,max-latency=0ms", "c: max-latency: '0ms' must be finite and above 0"),
        ("c:rate=3,min-accuracy=90", "c: min-accuracy: it is 90; it is a fraction: write 0.9"),
        ("c:rate=3,max-energy=5ms", "'5ms' must be a number with a unit (uJ, mJ, J)"),
        ("c:rate=3,part=0", "c: part: 0 must be finite and above 0"),
        ("c:rate=3,max-latency=1s,part=1", "c: max-latency comes before the first part"),
        ("c:rate=3,part=1,max-latency=1s,max-latency=2s", "twice; it may be given once a part"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as raised:
        read_app(text)
    assert said in str(raised.value)
