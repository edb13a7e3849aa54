"""The figures of ``delen top``, as lines for a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from delen.commands.table import figure

_LEVELS = ("p50", "p95", "p99")
_BARS = "▁▂▃▄▅▆▇█"
_GAP = " "


def figures_text(
    figures: Mapping[str, Any], windows: Sequence[Mapping[str, Any]], problem: str | None = None
) -> list[str]:
    """``figures`` of a daemon and its ``windows`` of the last hour. ``problem`` says why they are
    old, if they are."""
    power, queue = figures["power"], figures["queue"]
    head = [figures["node"], power["board"], figures["version"]]
    when = time.strftime("%H:%M:%S", time.localtime(figures["time"]))
    return [
        f"delen {' · '.join(filter(None, head))} at {when}",
        *([f"!! these figures are old: {problem}"] if problem else []),
        *_findings(figures["findings"]),
        "",
        f"power   {_watts(power['watts'])} ({_source(power)}); without requests "
        f"{_watts(power['static_w'])}, requests {_watts(power['dynamic_w'])}, "
        f"other {_watts(power['other_w'])}",
        f"hour    {_hour(windows)}",
        f"queue   {queue['jobs']} waiting or running, done in {_number(queue['backlog_ms'])} ms; "
        f"{queue['busy']} of {queue['lanes']} lanes busy{_memory(figures['memory'])}",
        f"price   {_price(power['price_per_j'])}",
        *(
            f"limit   {each['name']}: {each['explanation']}{' <-' * each['binding']}"
            for each in power["constraints"]
        ),
        "",
        *_apps(figures["apps"]),
        *(line for model in figures["models"] for line in _model(model)),
    ]


def _findings(findings: Iterable[Mapping[str, str]]) -> list[str]:
    lines = []
    for finding in findings:
        lines += [f"!! {finding['problem']}", f"   what helps: {finding['remedy']}"]
    return lines or ["nothing is wrong"]


def _source(power: Mapping[str, Any]) -> str:
    if power["source"] is None:
        return "no power source"
    state = "" if power["state"] == "ok" else f", {power['state']}"
    return f"{power['kind']} by {power['source']}{state}"


def _hour(windows: Sequence[Mapping[str, Any]]) -> str:
    """A bar for each window, from 0 to the highest; nothing where watts were not known."""
    watts = [window["watts"] for window in windows]
    known = [each for each in watts if each is not None]
    if not known:
        return "unknown"
    most = max(*known, 1e-9)
    steps = len(_BARS) - 1
    bars = [_GAP if each is None else _BARS[max(0, round(steps * each / most))] for each in watts]
    return f"{''.join(bars)} {min(known):.2f} to {max(known):.2f} W"


def _memory(memory: Mapping[str, float] | None) -> str:
    if memory is None:
        return ""
    return f"; models take {memory['taken_mb']:.0f} of {memory['cap_mb']:.0f} MB"


def _apps(apps: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not apps:
        return ["no app has sent a request yet"]
    width = max(len("app"), *map(len, apps))
    lines = [
        f"{'app':<{width}} {'answers':>9} {'refused':>8} {'missed latency':>15} {'accuracy':>9} "
        f"{'energy':>7} {'today':>11} {'in all':>11} {'price/J':>9} {'budget left':>12}"
    ]
    for name, app in apps.items():
        missed, left = app["missed"], app["balance_j"]
        budget = "no budget" if left is None else f"{_number(left)} J"
        price = "no limit" if app["price_per_j"] is None else _number(app["price_per_j"])
        lines.append(
            f"{name:<{width}} {app['answers']:>9} {app['refused']:>8} {missed['latency']:>15} "
            f"{missed['accuracy']:>9} {missed['energy']:>7} {_energy(app['today_wh']):>11} "
            f"{_energy(app['total_wh']):>11} {price:>9} {budget:>12}"
        )
    return lines


def _model(model: Mapping[str, Any]) -> list[str]:
    default = ", default" * model["default"]
    lines = ["", f"{model['name']}: {model['state']}{default}"]
    if model["problem"] is not None:
        lines.append(f"  {model['problem']}")
    if model["state"] != "ready":
        return lines
    recent, memory, slowdown = model["recent"], model["memory_mb"], model["slowdown"]
    lines[1] += f", {_number(memory)} MB, slowdown {_number(slowdown)}, {model['jobs']} jobs"
    lines.append(f"  answers in the last minute: {_exits(recent)}")
    if recent["answers"]:
        lines.append(f"  {'':<14}" + "".join(f"{level:>10}" for level in _LEVELS))
        for name, times, scale in (
            ("latency, ms", recent["latency_ms"], 1.0),
            ("waiting, ms", recent["queue_ms"], 1.0),
            ("of its bound, %", recent["of_bound"], 100.0),
        ):
            if times is not None:
                values = "".join(figure(scale * times[level], "10.4g") for level in _LEVELS)
                lines.append(f"  {name:<14}{values}")
    bounds = ", ".join(
        f"{name} {each['kept']} kept {each['missed']} missed"
        for name, each in model["bounds"].items()
    )
    lines.append(f"  bounds: {bounds}")
    lines.append(f"  accuracy over that of plans: {_over_plan(recent['over_plan'])}")
    return lines


def _exits(recent: Mapping[str, Any]) -> str:
    answers = recent["answers"]
    if not answers:
        return "none"
    shares = (
        f"exit {exit} {100 * count / answers:.0f} %"
        for exit, count in enumerate(recent["exits"])
        if count
    )
    return f"{answers}; {', '.join(shares)}"


def _over_plan(over: float | None) -> str:
    if over is None:
        return "unknown"
    return f"{over:+.3f}" + (", lost to load" if over < -0.0005 else "")


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def _watts(watts: float | None) -> str:
    return "unknown" if watts is None else f"{watts:.2f} W"


def _price(price: float | None) -> str:
    return "without limit: the least energy" if price is None else f"{price:.3g} accuracy/J"


def _energy(watt_hours: float | None) -> str:
    if watt_hours is not None and watt_hours < 0.1:
        return f"{1e3 * watt_hours:.3g} mWh"
    return "unknown" if watt_hours is None else f"{watt_hours:.3g} Wh"
