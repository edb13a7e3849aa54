"""The report of a bundle, for the engineer who made it: a page of Markdown and one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from delen.bundle.calibration import Calibration
from delen.bundle.manifest import Bundle
from delen.core.guarantee import HeldOut
from delen.core.variant import format_size
from policies.plan.sizes import level_of_each
from policies.plan.thresholds import certified_threshold, floor_without_error, highest_floor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REPORT = "report.md"
FIGURE = "report.png"
LEVEL = 0.95
"""The level of the floors in the report, the daemon's default."""
_SHOWN_THRESHOLDS = (1.0, 0.98, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
_BINS = 10
_HELD_OUT: Mapping[HeldOut, str] = {
    "known": "",
    "declared": "The weights come from elsewhere. That they never saw the calibration samples was "
    "declared, by calibration data of their own or by --unseen-calibration.",
    "unknown": "**It is not known what the weights were trained on.** If they saw the calibration "
    "samples, all figures below are better than what new data get. So the bundle guarantees no "
    "floor.",
}


def write_report(bundle: Bundle) -> list[str]:
    """Write ``report.png`` and ``report.md`` into the bundle's folder.

    All figures come from the bundle's own calibration table and manifest. Whatever fails, the
    bundle stays whole: returns one sentence for each file that could not be written, as the figure
    cannot without matplotlib.
    """
    problems = []
    for name, write in ((FIGURE, draw_report), (REPORT, _write_text)):
        file = bundle.path / name
        try:
            write(bundle, file)
        except Exception as error:
            file.unlink(missing_ok=True)
            reason = " ".join(str(error).split())
            problems.append(f"{file} could not be written: {type(error).__name__}: {reason}")
    return problems


def _write_text(bundle: Bundle, file: Path) -> None:
    file.write_text(report_text(bundle), encoding="utf-8")


def report_text(bundle: Bundle) -> str:
    """The report as Markdown, with the figure where it is drawn."""
    figure = f"![Accuracy against cost, calibration, and where inputs leave]({FIGURE})"
    manifest, table = bundle.manifest, bundle.calibration
    parts = [
        f"# {manifest.name} {manifest.version}",
        manifest.description,
        f"{manifest.classes} classes, {len(manifest.exits)} exits, {manifest.precision} for "
        f"{manifest.runtime}, confidence by {manifest.criterion.replace('_', ' ')}. Calibrated "
        f"on {described(table)} that nothing was fitted to. So many can certify a floor of at most "
        f"{floor_without_error(table, LEVEL):.2%} at level {LEVEL:g}, without an error.",
        _HELD_OUT[manifest.held_out],
        figure if (bundle.path / FIGURE).is_file() else "",
        "## Exits",
        exit_table(bundle),
        "MMAC are the multiply-adds of all that runs for an answer from that exit, heads "
        "included. ECE is the expected calibration error of the largest probability on the "
        "calibration samples, to which no temperature was fitted: before the temperature, and "
        "after it with the bootstrap's interval. Guaranteed is the highest floor that can be "
        f"promised at level {LEVEL:g} by the network that ends there, leaving earlier only at "
        "confidence 1.",
        "## Thresholds",
        threshold_table(bundle),
        "An input leaves at the first exit whose confidence reaches the threshold. Cost is the "
        "mean over the calibration samples, as a share of running everything to the end.",
        "## Floors",
        floor_table(bundle),
        _promise(table)
        + (" That is so only if the weights never saw them." * (manifest.held_out == "unknown")),
    ]
    if bundle.smaller:
        parts += [
            "## Sizes",
            size_table(bundle),
            "The same samples, scaled down to each size by the filter that scales inputs down "
            "where they are served. A request runs at one of the sizes, so their floors hold "
            f"together at level {LEVEL:g}: each is certified at {_level(bundle):.4f}.",
        ]
    if notes := manifest.provenance.get("data", {}).get("notes"):
        parts += ["## Notes on the data", "\n".join(f"- {note}" for note in notes)]
    if "criteria" in manifest.provenance:
        parts += ["## Criteria", _criteria_table(manifest.provenance["criteria"])]
        parts.append(
            "The least mean cost at which the validation samples are answered within half a "
            "point of the last exit's accuracy, as a share of running everything to the end."
        )
    if skipped := manifest.provenance.get("data", {}).get("skipped"):
        parts += ["## Files left out", "\n".join(f"- {name}" for name in skipped)]
    return "\n\n".join(part for part in parts if part) + "\n"


def described(table: Calibration) -> str:
    """How many samples, and groups, the calibration table is of."""
    groups = "" if table.groups is None else f" in {table.units} groups"
    return f"{table.samples} samples{groups}"


def _promise(table: Calibration) -> str:
    """What the floors mean."""
    drawn = "samples" if table.groups is None else "groups"
    sentence = (
        f"Each floor holds with probability {LEVEL:g} over the draw of the calibration {drawn} "
        "(Learn then Test, fixed sequence)."
    )
    if table.groups is not None:
        sentence += (
            " It is of the mean over groups of a group's accuracy, which is that of an input drawn "
            "from a new group; every accuracy here weighs groups alike, whatever their size."
        )
    return sentence


def exit_table(bundle: Bundle) -> str:
    """Per exit: cost, accuracies, calibration and size."""
    manifest, rows = bundle.manifest, []
    figures = manifest.provenance["exits"]
    for index, (exit, of_exit) in enumerate(zip(manifest.exits, figures, strict=True)):
        rows.append(
            [
                str(index),
                f"{exit.macs / 1e6:.2f}",
                f"{of_exit['macs_share']:.1%}",
                f"{bundle.calibration.accuracy(index):.2%}",
                "unknown" if exit.test_accuracy is None else f"{exit.test_accuracy:.2%}",
                "unknown"
                if manifest.held_out == "unknown"
                else f"{highest_floor(bundle.calibration, index, _level(bundle)):.2%}",
                f"{exit.temperature:.3f}",
                f"{of_exit['calibration_error_before']:.4f}",
                f"{of_exit['calibration_error_after']:.4f}",
                _interval(of_exit.get("calibration_error_interval")),
                f"{manifest.files[exit.graph].size / 1e6:.2f}",
            ]
        )
    heading = ["exit", "MMAC", "share", "calibration", "test", "guaranteed"]
    heading += ["temperature", "ECE before", "after", "95 % interval", "MB"]
    return _markdown(heading, rows)


def _level(bundle: Bundle) -> float:
    """The level at which the floors of each size are certified."""
    return level_of_each(LEVEL, len(bundle.manifest.all_sizes) or 1)


def size_table(bundle: Bundle) -> str:
    """Per input size and exit: cost and accuracies."""
    macs, rows = bundle.exits[-1].macs, []
    for at_size in bundle.sizes:
        assert at_size.size is not None
        for index, exit in enumerate(at_size.exits):
            floor = highest_floor(at_size.calibration, index, _level(bundle))
            is_unknown = bundle.manifest.held_out == "unknown"
            rows.append(
                [
                    format_size(at_size.size),
                    str(index),
                    f"{exit.macs / 1e6:.2f}",
                    f"{exit.macs / macs:.1%}",
                    f"{at_size.calibration.accuracy(index):.2%}",
                    "unknown" if exit.test_accuracy is None else f"{exit.test_accuracy:.2%}",
                    "unknown" if is_unknown else f"{floor:.2%}",
                ]
            )
    heading = ["size", "exit", "MMAC", "share", "calibration", "test", "guaranteed"]
    return _markdown(heading, rows)


def _interval(bounds: Sequence[float] | None) -> str:
    return "unknown" if bounds is None else f"{bounds[0]:.4f} to {bounds[1]:.4f}"


def threshold_table(bundle: Bundle) -> str:
    """At some thresholds: accuracy, mean cost and the share that leaves at each exit."""
    table, last = bundle.calibration, len(bundle.exits) - 1
    rows = []
    for threshold in _SHOWN_THRESHOLDS:
        leaving = table.exit_shares(threshold, last)
        cost = float(np.dot(leaving, cost_shares(bundle)))
        accuracy = float(table.right_answers(threshold, last).mean())
        rows.append([f"{threshold:g}", f"{accuracy:.2%}", f"{cost:.1%}"])
        rows[-1] += [f"{share:.1%}" for share in leaving]
    heading = ["threshold", "accuracy", "cost", *(f"exit {k}" for k in range(last + 1))]
    return _markdown(heading, rows)


def floor_table(bundle: Bundle) -> str:
    """Floors below the highest that can be guaranteed, and what keeping them costs. The network
    ends at the exit that has the highest."""
    table = bundle.calibration
    level = _level(bundle)
    highest, last = max((highest_floor(table, exit, level), exit) for exit in range(table.exits))
    shares = cost_shares(bundle)[: last + 1]
    rows = []
    for floor in [highest, *(highest - step for step in (0.01, 0.02, 0.05, 0.1))]:
        threshold = certified_threshold(table, last, floor, level)
        if floor <= 0 or threshold is None:
            continue
        cost = float(np.dot(table.exit_shares(threshold.value, last), shares))
        rows.append(
            [f"{floor:.2%}", f"{threshold.value:g}", f"{threshold.accuracy:.2%}", f"{cost:.1%}"]
        )
    if not rows:
        return f"{described(table)} are too few to guarantee any accuracy."
    return _markdown(["floor", "threshold", "expected accuracy", "cost"], rows)


def cost_shares(bundle: Bundle) -> list[float]:
    """Multiply-adds up to each exit as a share of all."""
    return [exit.macs / bundle.exits[-1].macs for exit in bundle.exits]


def _criteria_table(scores: dict[str, Any]) -> str:
    rows = [
        [
            name.replace("_", " "),
            f"{score['cost']:.1%}",
            "full runs" if score["threshold"] is None else f"{score['threshold']:g}",
            f"{score['accuracy']:.2%}",
        ]
        for name, score in scores.items()
    ]
    return _markdown(["criterion", "cost", "threshold", "accuracy"], rows)


def _markdown(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---:"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw_report(bundle: Bundle, file: Path) -> None:
    """Draw accuracy against cost, the calibration of each exit, and where inputs leave."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.8), layout="constrained")
    accuracy, calibration, leaving = figure.subplots(1, 3)
    _draw_accuracy(accuracy, bundle)
    _draw_calibration(calibration, bundle)
    _draw_leaving(leaving, bundle)
    figure.suptitle(f"{bundle.name} {bundle.manifest.version}, calibration samples")
    figure.savefig(file, dpi=110, metadata={"Software": None})


def _draw_accuracy(axes: Axes, bundle: Bundle) -> None:
    table, last = bundle.calibration, len(bundle.exits) - 1
    shares = 100 * np.array(cost_shares(bundle))
    axes.plot(
        table.share_curve(last) @ shares,
        100 * table.curve(last).accuracy,
        label="leaving when confident",
    )
    exits = [100 * table.accuracy(exit) for exit in range(last + 1)]
    axes.plot(shares, exits, "o--", label="all to one exit")
    for exit, (x, y) in enumerate(zip(shares, exits, strict=True)):
        axes.annotate(str(exit), (x, y), (5, -11), textcoords="offset points", fontsize=8)
    axes.set(xlabel="mean cost (% of the whole network)", ylabel="accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _draw_calibration(axes: Axes, bundle: Bundle) -> None:
    table = bundle.calibration
    for exit in range(table.exits):
        confidence, right = table.confidence[:, exit], table.correct[:, exit]
        bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
        counts = np.bincount(bins, minlength=_BINS)
        shown = counts >= 20
        means = np.bincount(bins, confidence, _BINS)[shown] / counts[shown]
        axes.plot(
            means,
            100 * np.bincount(bins, right, _BINS)[shown] / counts[shown],
            "o-",
            markersize=3,
            label=f"exit {exit}",
        )
    axes.plot([0, 1], [0, 100], color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel=bundle.manifest.criterion.replace("_", " "), ylabel="right (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _draw_leaving(axes: Axes, bundle: Bundle) -> None:
    last = len(bundle.exits) - 1
    shares = 100 * np.array(
        [bundle.calibration.exit_shares(value, last) for value in _SHOWN_THRESHOLDS]
    )
    positions = np.arange(len(_SHOWN_THRESHOLDS))
    below = np.zeros(len(positions))
    for exit in range(last + 1):
        axes.bar(positions, shares[:, exit], bottom=below, label=f"exit {exit}")
        below += shares[:, exit]
    axes.set_xticks(positions, [f"{value:g}" for value in _SHOWN_THRESHOLDS])
    axes.set(xlabel="threshold", ylabel="inputs that leave there (%)")
    axes.legend(fontsize=8)
