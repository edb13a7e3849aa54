"""The options of ``delen simulate --link``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from delen.commands.common import LATENCIES, TIMES, fraction, positive, quantity, whole
from delen.errors import ConfigError

if TYPE_CHECKING:
    from delen.simulate.streams.link import LinkSettings

_ONLY_TRACES = ("weight", "priority", "network", "actual", "speed", "seeds", "compare")
_ONLY_LINKS = ("controller", "sizes", "fps", "deadline", "streams", "duration", "in_flight")
_READERS: dict[str, Callable[[str], float]] = {
    "delay": quantity(LATENCIES, zero=True),
    "jitter": quantity(LATENCIES, zero=True),
    "burst": quantity(LATENCIES),
    "loss": fraction,
    "variation": fraction,
    "fades": fraction,
}
DEFAULT_FPS = 30.0
DEFAULT_DEADLINE = 0.1
DEFAULT_DURATION = 60.0
_MOST_FRAMES = 10_000_000


@dataclass(frozen=True, slots=True)
class LinkOption:
    """What ``--link`` says."""

    file: Path
    is_linear: bool
    others: dict[str, float]

    def read(self) -> LinkSettings:
        """TraceError names what is wrong with the file."""
        from delen.simulate.streams.bandwidth import HOLD, LINEAR, read_bandwidth
        from delen.simulate.streams.link import LinkSettings

        bandwidth = read_bandwidth(self.file, LINEAR if self.is_linear else HOLD)
        try:
            return LinkSettings(bandwidth, **self.others)
        except ValueError as error:
            raise ConfigError(f"--link: {error}") from error


def link(text: str) -> LinkOption:
    """A reader of ``--link``."""
    from delen.simulate.streams.bandwidth import INTERPOLATIONS, LINEAR

    file, *parts = text.split(",")
    interpolations = [part for part in parts if part in INTERPOLATIONS]
    if len(interpolations) > 1:
        raise argparse.ArgumentTypeError(f"give one of {' and '.join(INTERPOLATIONS)}, and once")
    others: dict[str, float] = {}
    for part in parts:
        key, sign, value = part.partition("=")
        if part in INTERPOLATIONS:
            continue
        if key in _READERS and sign:
            if key in others:
                raise argparse.ArgumentTypeError(f"{key} is given twice")
            try:
                others[key] = _READERS[key](value)
            except argparse.ArgumentTypeError as error:
                raise argparse.ArgumentTypeError(f"{key}: {error}") from None
        else:
            known = ", ".join(f"{name}=" for name in _READERS)
            raise argparse.ArgumentTypeError(
                f"{part!r} is not known; behind the file may stand hold, linear, {known}"
            )
    if not file:
        raise argparse.ArgumentTypeError(f"{text!r} names no file")
    return LinkOption(Path(file), LINEAR in interpolations, others)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "streams of frames",
        "With --link in place of --trace, cameras send frames over links, and client controllers "
        "choose the size of each.",
    )
    group.add_argument(
        "--sizes",
        type=Path,
        metavar="FILE",
        help="the sizes of frames, in place of a bundle: CSV with height,width,payload_bytes,"
        "encoding_ms,latency_ms,accuracy",
    )
    group.add_argument(
        "--controller",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="client controllers (default: all there are)",
    )
    group.add_argument("--fps", type=positive, help=f"frames a second (default: {DEFAULT_FPS:g})")
    group.add_argument(
        "--deadline",
        type=quantity(LATENCIES),
        metavar="33ms",
        help=f"from a frame's capture to its answer (default: {1e3 * DEFAULT_DEADLINE:g}ms)",
    )
    group.add_argument(
        "--duration",
        type=quantity(TIMES),
        metavar="1min",
        help=f"of each stream (default: {DEFAULT_DURATION:g}s); a shorter bandwidth begins anew",
    )
    group.add_argument(
        "--streams", type=whole(1), metavar="N", help="cameras, each on a link of its own"
    )
    group.add_argument(
        "--in-flight",
        type=whole(1),
        metavar="N",
        help="frames of a stream on their way at once (default: those of a deadline and another)",
    )


def check(options: argparse.Namespace) -> None:
    """ConfigError for options that go with traces where there is a link, or the other way."""
    wrong = _ONLY_TRACES if options.link is not None else _ONLY_LINKS
    for name in wrong:
        if getattr(options, name):
            other = "--trace" if options.link is not None else "--link"
            raise ConfigError(f"--{name.replace('_', '-')} goes with {other}")
    if options.link is not None and options.policy and len(options.policy) > 1:
        raise ConfigError("--policy: give one with --link, which compares controllers")
    if options.link is not None:
        _check_streams(options)
    if options.sizes is not None and (options.model or options.bundle or options.profile):
        raise ConfigError("--sizes stands for the model: leave out --model, --bundle and --profile")


def _check_streams(options: argparse.Namespace) -> None:
    from policies.plugins import CLIENT_CONTROLLERS, DISPATCH_POLICIES, plugin_names

    unknown = {*(options.policy or ())} - {*plugin_names(DISPATCH_POLICIES)}
    for name in unknown & {*plugin_names(CLIENT_CONTROLLERS)}:
        raise ConfigError(
            f"--policy {name}: it is a client controller, not a dispatch policy: give --controller "
            f"{name}"
        )
    seconds = options.duration or DEFAULT_DURATION
    frames = (options.streams or 1) * (options.fps or DEFAULT_FPS) * seconds
    if frames > _MOST_FRAMES:
        raise ConfigError(
            f"--fps, --duration and --streams make {frames:.3g} frames; they may make at most "
            f"{_MOST_FRAMES}"
        )
