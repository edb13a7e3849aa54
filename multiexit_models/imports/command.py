"""``delen import``: from an ONNX image classifier to a served bundle."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from multiexit_models.imports.spec import LAYOUTS, ImportSpec
from multiexit_models.options import (
    EXTRA,
    at_least_one,
    exit_on_sigterm,
    need_extra,
    number,
    numbers,
    print_bundle,
    seed,
    share,
)
from multiexit_models.progress import Bar

DESCRIPTION = f"""\
Make a bundle of an image classifier in an ONNX file, without the code that trained it: calibrated
on your images, checked against the file, and served like any other. With one exit, bounds choose
between answering and refusing. With --exits N the graph is cut where one tensor alone is still
needed, and early exits are trained there on frozen features, from your images alone.
Needs: pip install 'delen[{EXTRA}]'.

The images must be ones that the classifier was not trained on: a guarantee calibrated on its
training images does not hold. A softmax at the end, a batch fixed at 1, NCHW or NHWC, uint8 or
float inputs all work.

examples:
  delen import resnet50.onnx --labels labels.txt --calibration photos
  delen import resnet50.onnx --labels labels.txt --calibration photos --exits 4
  delen import mobilenet.onnx --labels labels.txt --calibration photos --output bundles/mobile \\
      --mean 0.5 --std 0.5 --size 224x224
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``delen import`` on ``parser``."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    _add_most_used(parser.add_argument_group("what matters first"))
    _add_input(parser.add_argument_group("what the classifier takes").add_argument)
    _add_images(parser.add_argument_group("reading images").add_argument)
    _add_exits(parser.add_argument_group("early exits").add_argument)
    _add_bundle(parser.add_argument_group("the bundle").add_argument)
    defaults = {field.name: field.default for field in fields(ImportSpec)}
    parser.set_defaults(**{name: value for name, value in defaults.items() if value is not MISSING})


def _add_most_used(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("model", type=Path, metavar="MODEL.onnx", help="an image classifier")
    add(
        "--labels",
        type=Path,
        required=True,
        metavar="FILE",
        help="its labels, one a line, in the order of its outputs",
    )
    add(
        "--calibration",
        type=Path,
        required=True,
        metavar="DIR",
        help="images that it was not trained on, in one folder a label",
    )
    add("--exits", type=at_least_one, metavar="N", help="number of exits (default: 1)")
    add("--output", type=Path, metavar="DIR", help="the bundle's folder (default: --name)")


def _add_input(add: Callable[..., Any]) -> None:
    add("--size", metavar="SIZE", help="HEIGHTxWIDTH of images, where the file leaves it open")
    add("--layout", choices=LAYOUTS, help="where its channels are (default: by its shape)")
    add(
        "--mean",
        type=numbers,
        metavar="M,M,M",
        help="subtracted from pixels of 0 to 1 (default: ImageNet's; with --scale or grey: 0)",
    )
    add("--std", type=numbers, metavar="S,S,S", help="what they are then divided by, likewise")
    add(
        "--scale",
        type=number,
        metavar="FACTOR",
        help="what pixels of 0 to 255 are multiplied with before --mean (default: 1/255)",
    )


def _add_images(add: Callable[..., Any]) -> None:
    add(
        "--group-by",
        metavar="REGEX",
        help="files for whose names it finds the same text (a track, a place) are a group: they "
        "stay in one part, and floors are certified over groups (default: the folders in classes)",
    )
    add(
        "--max-unreadable",
        type=share,
        metavar="SHARE",
        help="share of the files that may be unreadable (default: 0.01)",
    )


def _add_exits(add: Callable[..., Any]) -> None:
    add(
        "--head",
        choices=("pooled", "convolutional"),
        help="early heads: a mean over all places (the default), or a convolution before it",
    )
    add("--epochs", type=at_least_one, metavar="N", help="passes over the training part")
    add("--no-mirror", action="store_true", help="never mirror images: for digits, text, signs")
    add("--seed", type=seed, metavar="N", help="seed of parts, heads and order (default: 0)")
    add("--threads", type=at_least_one, metavar="N", help="CPU threads (default: torch's choice)")


def _add_bundle(add: Callable[..., Any]) -> None:
    add("--name", help="name of the model (default: the folder's, else the file's)")
    add("--model-version", metavar="VERSION", help="version of the model (default: 1)")
    add("--description", metavar="TEXT", help="one sentence on the model")
    add("--max-batch", type=at_least_one, metavar="N", help="largest batch (default: 32)")
    add(
        "--floor",
        type=share,
        metavar="ACCURACY",
        help="refuse a bundle that cannot guarantee this min_accuracy at level 0.95",
    )
    add("--overwrite", action="store_true", help="replace the bundle in --output")
    add("--json", action="store_true", help="print the figures as JSON")


def run(args: argparse.Namespace) -> int:
    """Import as ``args`` say and print a table of the exits; the command's exit status.

    Raises MissingExtra when torch or another part of the extra is not installed, InvalidInput for
    options that contradict, and all that ``import_model`` raises but for a training that diverges.
    """
    need_extra()
    from multiexit_models.imports.run import import_model

    values: dict[str, Any] = {
        field.name: getattr(args, field.name, None) for field in fields(ImportSpec)
    }
    values["output"] = args.output or Path(args.name or args.model.stem)
    spec = ImportSpec(**{**values, "precision": "fp32", "runtime": "onnx"})
    try:
        with exit_on_sigterm(), closing(Bar()) as bar:
            bundle = import_model(spec, bar)
    except FloatingPointError as error:
        print(f"delen: training failed: {error}; try another --seed", file=sys.stderr)
        return 1
    print_bundle(bundle, args.json)
    return 0
