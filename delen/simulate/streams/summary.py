"""The figures of ``delen simulate --link`` from the frames of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from delen.core.variant import format_size
from delen.simulate.streams.frames import Frames
from delen.simulate.streams.play import Played
from delen.simulate.streams.stream import StreamSettings
from delen.simulate.summary import quantile


def summarise(
    controller: str,
    policy: str,
    streams: Sequence[StreamSettings],
    played: Played,
    upper_bound: float | None,
) -> dict[str, Any]:
    """The JSON object of one controller; ``upper_bound`` is None if it is unknown."""
    parts = [
        _figures(frames, settings) for frames, settings in zip(played.frames, streams, strict=True)
    ]
    decisions = 1e6 * np.concatenate([frames.decision_seconds for frames in played.frames])
    return {
        "controller": controller,
        "policy": policy,
        **_figures(_joined(played.frames), streams[0]),
        "switches": sum(part["switches"] for part in parts),
        "upper_bound": upper_bound,
        "energy_j": played.joules,
        "decision_us": {"p50": quantile(decisions, 0.5), "p99": quantile(decisions, 0.99)},
        "streams": {settings.name: part for settings, part in zip(streams, parts, strict=True)},
    }


def _joined(parts: Sequence[Frames]) -> Frames:
    causes = {cause: 0 for part in parts for cause in part.dropped}
    columns = ("captured", "index", "sent", "answered", "exit", "correct", "decision_seconds")
    return Frames(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in columns},
        dropped={cause: sum(part.dropped.get(cause, 0) for part in parts) for cause in causes},
    )


def _figures(frames: Frames, settings: StreamSettings) -> dict[str, Any]:
    answered = ~np.isnan(frames.answered)
    late = answered & ~frames.in_time(settings.deadline)
    latencies = 1e3 * frames.latency[answered]
    exits = frames.exit[answered]
    counts = np.bincount(frames.index[frames.index >= 0], minlength=len(settings.options))
    last = max(option.exit for option in settings.options)
    return {
        "requests": len(frames),
        "answered": int(answered.sum()),
        "refused": frames.dropped.get("refused", 0),
        "missed": {"latency": int(late.sum()), "accuracy": 0, "energy": 0},
        "missed_share": float(1 - frames.in_time(settings.deadline).mean()),
        "effective_accuracy": frames.effective(settings.deadline),
        "latency_ms": {f"p{100 * q:.0f}": quantile(latencies, q) for q in (0.5, 0.95, 0.99)},
        "exits": (np.bincount(exits, minlength=last + 1) / max(1, len(exits))).tolist(),
        "sizes": {
            "?" if option.size is None else format_size(option.size): int(count)
            for option, count in zip(settings.options, counts, strict=True)
        },
        "switches": frames.switches,
        "dropped": dict(frames.dropped),
    }
