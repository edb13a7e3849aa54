"""``delen build``: trains, calibrates and exports the image network on one's own machine."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from delen.errors import MissingExtra
from multiexit_models.recipe import QUICK_EPOCHS, Recipe

if TYPE_CHECKING:
    from delen.bundle import Bundle

EXTRA = "train"
NEEDED = ("torch", "onnx", "onnxscript", "onnxruntime", "PIL", "tqdm")
_PACKAGES = {"PIL": "pillow"}

DESCRIPTION = f"""\
Train a residual network with five exits on CIFAR-10, set its temperatures on images that it was
not trained on, export one ONNX graph a segment, check the graphs against torch and write the
bundle. Needs: pip install 'delen[{EXTRA}]'.

The bundle that ships with delen was made by
  delen build --data cifar-10-batches-bin --output cifar10-resnet
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``delen build`` on ``parser``."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    default = Recipe()
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help="CIFAR-10: the folder cifar-10-batches-bin of its binary version, or a zip of mosaics",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="the bundle's folder"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--epochs",
        type=_at_least_one,
        metavar="N",
        help=f"passes over the training images (default: {default.epochs})",
    )
    how.add_argument(
        "--quick",
        action="store_true",
        help=f"{QUICK_EPOCHS} epochs, a bundle to try things with: 54 to 82 %% of the test images "
        "right, from the first exit to the last, where the default reaches 70 to 91 %%",
    )
    how.add_argument(
        "--weights", type=Path, metavar="FILE", help="take these trained weights, train nothing"
    )
    parser.add_argument(
        "--seed", type=int, default=default.seed, help="of weights and order (default: %(default)s)"
    )
    parser.add_argument(
        "--threads", type=_at_least_one, metavar="N", help="CPU threads (default: torch's choice)"
    )
    parser.add_argument(
        "--save-weights", type=Path, metavar="FILE", help="keep the trained weights for --weights"
    )
    parser.add_argument(
        "--calibration-images",
        type=_at_least_one,
        default=5000,
        metavar="N",
        help="training images set aside for calibration (default: %(default)s)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the bundle that is in --output"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


_at_least_one.__name__ = "whole number above 0"


def run(args: argparse.Namespace) -> int:
    """Build as ``args`` say and print a table of the exits; the command's exit status.

    Raises MissingExtra when torch or another part of the extra is not installed, InvalidInput
    for data, weights or an output that cannot be used, BundleError when the export fails its check.
    """
    _need_extra()
    import torch

    from multiexit_models.build import build_cifar10

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    epochs = QUICK_EPOCHS if args.quick else args.epochs or Recipe.epochs
    try:
        with _Bar() as bar:
            bundle = build_cifar10(
                args.data,
                args.output,
                recipe=replace(Recipe(), epochs=epochs, seed=args.seed),
                calibration_images=args.calibration_images,
                weights=args.weights,
                save_weights_to=args.save_weights,
                overwrite=args.overwrite,
                progress=bar,
            )
    except FloatingPointError as error:
        print(f"training failed: {error}; another --seed may help", file=sys.stderr)
        return 1
    figures = _figures(bundle)
    print(json.dumps(figures, indent=1) if args.json else _table(figures))
    return 0


def _need_extra() -> None:
    for module in NEEDED:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            missing = error.name or module
            raise MissingExtra(_PACKAGES.get(missing, missing), EXTRA) from error


class _Bar:
    """Progress on stderr, with the time left while training."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def stage(self, name: str) -> None:
        self._close()
        print(f"{name} ...", file=sys.stderr, flush=True)

    def step(self, done: int, total: int, loss: float) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="step", file=sys.stderr)
        self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _figures(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    sizes = [manifest.files[exit.graph].size for exit in manifest.exits]
    exits = manifest.provenance["exits"]
    return {
        "bundle": str(bundle.path),
        "model": manifest.name,
        "version": manifest.version,
        "digest": bundle.digest,
        "exits": [{**exit, "bytes": size} for exit, size in zip(exits, sizes, strict=True)],
    }


def _table(figures: dict[str, Any]) -> str:
    heading = (
        f"{'exit':>4} {'MMAC':>7} {'share':>7} {'calibration':>12} {'test':>8} "
        f"{'temperature':>12} {'ECE before':>11} {'after':>7} {'MB':>6}"
    )
    lines = [f"{figures['model']} {figures['version']} in {figures['bundle']}", heading]
    for index, exit in enumerate(figures["exits"]):
        lines.append(
            f"{index:>4} {exit['macs'] / 1e6:>7.2f} {exit['macs_share']:>7.1%} "
            f"{exit['calibration_accuracy']:>12.2%} {exit['test_accuracy']:>8.2%} "
            f"{exit['temperature']:>12.3f} {exit['calibration_error_before']:>11.4f} "
            f"{exit['calibration_error_after']:>7.4f} {exit['bytes'] / 1e6:>6.2f}"
        )
    lines.append("MMAC and share are of all that runs for an answer from that exit, heads included")
    return "\n".join(lines)
