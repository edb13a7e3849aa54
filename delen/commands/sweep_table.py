"""The table of several runs of ``delen simulate``: means over seeds, a line a file, speed and
policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from delen.simulate.mean_interval import Mean
from delen.simulate.sweep import COLUMNS, Line, Summary, lines_of


def sweep_table(summaries: Sequence[Summary]) -> str:
    """Files are compared by the effective accuracy of the same seeds, each with the first."""
    lines, head = lines_of(summaries), summaries[0]
    seeds = len(lines[0].runs)
    files = list(dict.fromkeys(line.compared for line in lines if line.compared is not None))
    rows = [[*_labels(("file", "speed", "policy"), files), *COLUMNS]]
    if files:
        rows[0].append("than the first")
    first = {line[1:3]: line for line in lines if files and line.compared == files[0]}
    for line in lines:
        name = _short(line.compared, files) if line.compared is not None else ""
        row = _labels((name, f"{line.speed:g}", line.policy), files)
        row += [mean_text(line.mean(name), form) for name, (_, form) in COLUMNS.items()]
        if files:
            row.append(_difference(line, first[line[1:3]]))
        rows.append(row)
    labels = len(_labels(("", "", ""), files))
    title = (
        f"{head['requests']} requests, {len(head['tenants'])} tenants, {seeds} "
        f"{'seed' if seeds == 1 else 'seeds'}; effective accuracy counts right answers within all "
        "bounds"
    )
    if seeds > 1:
        title += "; ± is the 95 % interval of the mean"
    return f"{title}\n{aligned(rows, labels)}"


def aligned(rows: Sequence[Sequence[str]], labels: int) -> str:
    """A line a row, the first ``labels`` columns to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(f"{_line(row, widths, labels)}\n" for row in rows)


def _labels(labels: tuple[str, str, str], files: Sequence[str]) -> list[str]:
    return list(labels if files else labels[1:])


def _short(file: str, files: Sequence[str]) -> str:
    """The name of ``file``, with its folder where another one has that name."""
    name = Path(file).name
    return file if [Path(other).name for other in files].count(name) > 1 else name


def mean_text(mean: Mean | None, form: str) -> str:
    """``mean`` with its interval in the format ``form``; a dash where it is unknown."""
    if mean is None:
        return "-"
    if mean.reach is None:
        return f"{mean.mean:{form}}"
    return f"{mean.mean:{form}} ± {mean.reach:{form.replace('4g', '2g')}}"


def _difference(line: Line, first: Line) -> str:
    if line is first:
        return ""
    pairs = zip(line.runs, first.runs, strict=True)
    values = [(one["effective_accuracy"], other["effective_accuracy"]) for one, other in pairs]
    if any(None in pair for pair in values):
        return "-"
    return mean_text(Mean.of([one - other for one, other in values]), "+.4f").replace("± +", "± ")


def _line(row: Sequence[str], widths: Sequence[int], labels: int) -> str:
    cells = [
        f"{cell:<{width}}" if index < labels else f"{cell:>{width}}"
        for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
