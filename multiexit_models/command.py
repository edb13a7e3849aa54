"""``delen build``: from labelled data to a served bundle, on one's own machine."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delen.errors import InvalidInput, MissingExtra
from multiexit_models.progress import Bar
from multiexit_models.train.recipe import QUICK_EPOCHS

if TYPE_CHECKING:
    from delen.bundle.manifest import Bundle

EXTRA = "train"
NEEDED = ("torch", "onnx", "onnxscript", "onnxruntime", "PIL", "matplotlib", "tqdm")
_PACKAGES = {"PIL": "pillow"}

DESCRIPTION = f"""\
Train a multi-exit network on labelled data, or put exits on your own; choose its criterion and
temperatures, calibrate it on samples that nothing was fitted to, export one graph a segment, check
the graphs against torch, and write the bundle and a report. Needs: pip install 'delen[{EXTRA}]'.

Data: a folder with one folder of images (or .wav recordings) a class, perhaps under train/, val/,
calibration/ and test/; a CSV of texts and labels; CIFAR-10; or a dataset of torchvision.
Killed, it goes on from its last checkpoint when it is started again.

examples:
  delen build --data photos --output bundles/photos
  delen build --data photos --output bundles/photos --backbone net.py:make --at layer2,layer3 \\
      --size 224x224
  delen build --data cifar-10-batches-bin --output cifar10-resnet
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``delen build`` on ``parser``."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    _add_data(parser.add_argument_group("data"))
    _add_network(parser.add_argument_group("network"))
    _add_training(parser.add_argument_group("training"))
    _add_bundle(parser.add_argument_group("bundle"))


def _add_data(group: Any) -> None:
    group.add_argument("--data", type=Path, required=True, metavar="PATH", help="where it is")
    group.add_argument(
        "--kind",
        metavar="KIND",
        help="images, audio, texts, cifar10, fsdd or torchvision:NAME (default: by what is there)",
    )
    group.add_argument(
        "--size",
        metavar="SIZE",
        help="of an input: HEIGHTxWIDTH of images, samples of audio, bytes of texts (default: the "
        "network's)",
    )
    group.add_argument(
        "--sample-rate", type=_at_least_one, metavar="HZ", help="of audio (default: the network's)"
    )
    group.add_argument("--text-column", metavar="NAME", help="of a CSV")
    group.add_argument("--label-column", metavar="NAME", help="of a CSV")
    group.add_argument("--split-column", metavar="NAME", help="of a CSV, with each text's part")
    group.add_argument(
        "--group-by",
        metavar="REGEX",
        help="files for whose names it finds the same text (a track, a speaker) stay in one part",
    )
    group.add_argument(
        "--cache", type=Path, metavar="DIR", help="keep decoded files here, for data beyond memory"
    )
    group.add_argument(
        "--max-unreadable",
        type=_share,
        metavar="SHARE",
        help="of the images that may be unreadable; they are named and left out (default: 0.01)",
    )


def _add_network(group: Any) -> None:
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--network", metavar="NAME", help="of the zoo (default: a small one for the kind of data)",
    )  # fmt: skip
    which.add_argument(
        "--backbone",
        metavar="PLACE",
        help="your own: FILE.py:FUNCTION or MODULE:FUNCTION that gives a torch classifier",
    )
    group.add_argument("--list-networks", action=_ListNetworks, nargs=0, help="show the zoo")
    where = group.add_mutually_exclusive_group()
    where.add_argument(
        "--at", metavar="LAYERS", help="of --backbone: exits after these layers, by commas"
    )
    where.add_argument(
        "--exits", type=_at_least_one, metavar="N", help="of --backbone: so many exits"
    )
    group.add_argument(
        "--place",
        choices=("cost", "probe"),
        help="where --exits go: by equal shares of the cost (the default), or by times and "
        "accuracies measured on the validation part",
    )
    group.add_argument(
        "--head",
        choices=("pooled", "convolutional"),
        help="of the early exits of --backbone: a mean over all places (the default), or a "
        "convolution before it, which sees more in shallow features and costs more",
    )
    group.add_argument(
        "--mean", type=_numbers, metavar="M,M,M",
        help="by which images are normalised for --backbone (default: ImageNet's)",
    )  # fmt: skip
    group.add_argument("--std", type=_numbers, metavar="S,S,S", help="likewise")
    group.add_argument(
        "--pretrained", action="store_true", help="begin with the published weights of --network"
    )


def _add_training(group: Any) -> None:
    how = group.add_mutually_exclusive_group()
    how.add_argument("--epochs", type=_at_least_one, metavar="N", help="passes over the data")
    how.add_argument(
        "--quick",
        action="store_true",
        help=f"{QUICK_EPOCHS} epochs: a bundle to try things with, several points less accurate",
    )
    how.add_argument(
        "--weights", type=Path, metavar="FILE", help="take these trained weights, train nothing"
    )
    group.add_argument("--batch-size", type=_at_least_one, metavar="N", help="of training")
    group.add_argument(
        "--frozen",
        action="store_true",
        help="train the heads alone and leave the backbone as it is",
    )
    group.add_argument(
        "--no-mirror",
        action="store_true",
        help="images are never mirrored in training: for digits, text, signs",
    )
    group.add_argument("--seed", type=int, default=0, help="of weights, splits and order")
    group.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda"), help="to train on"
    )
    group.add_argument(
        "--threads", type=_at_least_one, metavar="N", help="CPU threads (default: torch's choice)"
    )
    group.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="kept while training, to go on from (default: OUTPUT.checkpoint, removed at the end)",
    )
    group.add_argument(
        "--save-weights", type=Path, metavar="FILE", help="keep the trained weights for --weights"
    )


def _add_bundle(group: Any) -> None:
    group.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="the bundle's folder"
    )
    group.add_argument("--name", help="of the model (default: the folder's)")
    group.add_argument("--model-version", default="1", metavar="VERSION", help="(default: 1)")
    group.add_argument("--description", metavar="TEXT", help="one sentence on the model")
    group.add_argument(
        "--precision",
        default="fp32",
        choices=("fp32", "fp16", "int8"),
        help="of weights; the bundle is calibrated in it (default: fp32)",
    )
    group.add_argument(
        "--runtime",
        default="onnx",
        choices=("onnx", "torch"),
        help="of the graphs; torch is for what does not export to ONNX (default: onnx)",
    )
    group.add_argument(
        "--max-batch", type=_at_least_one, default=32, metavar="N", help="(default: 32)"
    )
    group.add_argument(
        "--floor",
        type=_share,
        metavar="ACCURACY",
        help="refuse a bundle that cannot guarantee this min_accuracy at level 0.95",
    )
    group.add_argument("--overwrite", action="store_true", help="replace the bundle in --output")
    group.add_argument("--json", action="store_true", help="print the figures as JSON")


class _ListNetworks(argparse.Action):
    """Prints the zoo and ends, as --version does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        _need_extra()
        from multiexit_models.orders import list_networks

        print(list_networks())
        parser.exit()


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(text)
    return value


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


_at_least_one.__name__ = "whole number above 0"
_share.__name__ = "share from 0 to 1"
_numbers.__name__ = "list of numbers"


def run(args: argparse.Namespace) -> int:
    """Build as ``args`` say and print a table of the exits; the command's exit status.

    Raises MissingExtra when torch or another part of the extra is not installed, InvalidInput
    for data, a network, weights or an output that cannot be used, BundleError when the export
    fails its check.
    """
    _need_extra()
    from multiexit_models.orders import carry_out

    _check_together(args)
    try:
        with Bar() as bar:
            bundle = carry_out(args, bar)
    except FloatingPointError as error:
        print(f"delen: training failed: {error}; try another --seed", file=sys.stderr)
        return 1
    _print(bundle, args.json)
    return 0


def _need_extra() -> None:
    for module in NEEDED:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            missing = error.name or module
            raise MissingExtra(_PACKAGES.get(missing, missing), EXTRA) from error


def _check_together(args: argparse.Namespace) -> None:
    """InvalidInput where one argument makes another do nothing."""
    if args.backbone is None and (args.at or args.exits):
        raise InvalidInput("--at and --exits are for --backbone; the zoo's exits are placed", "at")
    if args.backbone is not None and not (args.at or args.exits):
        raise InvalidInput("--backbone needs --at LAYERS or --exits N", "backbone")
    if args.backbone is None and args.head is not None:
        raise InvalidInput("--head is for --backbone; the zoo has its own", "head")
    if args.place is not None and args.exits is None:
        raise InvalidInput("--place is for --exits N", "place")
    if args.backbone is not None and args.size is None:
        raise InvalidInput("--backbone needs --size: what your network takes", "size")
    if args.backbone is None and (args.mean or args.std):
        raise InvalidInput("--mean and --std are for --backbone; the zoo has its own", "mean")
    if args.batch_size == 1:
        raise InvalidInput(
            "--batch-size must be 2 or more: batch norms need a spread", "batch_size"
        )
    if args.runtime == "torch" and args.precision != "fp32":
        raise InvalidInput(f"--runtime torch takes fp32, not {args.precision}", "precision")
    if args.backbone is not None and args.pretrained:
        raise InvalidInput("--pretrained is for --network; --backbone brings its own", "pretrained")
    trains = args.frozen or args.batch_size or args.checkpoint or args.no_mirror or args.pretrained
    if args.weights is not None and trains:
        raise InvalidInput(
            "--weights trains nothing, so the training's options do nothing", "weights"
        )


def _print(bundle: Bundle, as_json: bool) -> None:
    from multiexit_models.report import REPORT, exit_table

    if not as_json:
        print(f"{bundle.name} {bundle.manifest.version} in {bundle.path}")
        print(exit_table(bundle))
        print(f"more in {bundle.path / REPORT}")
        return
    manifest = bundle.manifest
    sizes = [manifest.files[exit.graph].size for exit in manifest.exits]
    exits = manifest.provenance["exits"]
    figures = {
        "bundle": str(bundle.path),
        "model": manifest.name,
        "version": manifest.version,
        "digest": bundle.digest,
        "criterion": manifest.criterion,
        "exits": [{**exit, "bytes": size} for exit, size in zip(exits, sizes, strict=True)],
    }
    print(json.dumps(figures, indent=1))
