"""The option ``--plot`` of commands that draw one plot."""

from __future__ import annotations

from pathlib import Path

from delen.errors import ConfigError
from delen.simulate.plots import use_files


def check_plot(file: Path) -> None:
    """Say before the work what would stop its plot from being drawn after it."""
    use_files()
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    known = FigureCanvasAgg.get_supported_filetypes()
    if file.suffix and file.suffix[1:].lower() not in known:
        raise ConfigError(f"--plot is {file}; it must end with .png, .svg or .pdf")
    if not file.parent.is_dir():
        raise ConfigError(f"--plot is {file}; there is no folder {file.parent}")
