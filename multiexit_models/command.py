"""``delen build``: from labelled data to a served bundle, on one's own machine."""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import MISSING, fields
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delen.errors import MissingExtra
from multiexit_models.progress import Bar
from multiexit_models.spec import QUICK_EPOCHS, BuildSpec

if TYPE_CHECKING:
    from delen.bundle.manifest import Bundle

EXTRA = "train"
NEEDED = ("torch", "onnx", "onnxscript", "onnxruntime", "PIL", "tqdm")
TERMINATED = 143
"""The status after SIGTERM, as shells give it."""
_PACKAGES = {"PIL": "pillow"}

DESCRIPTION = f"""\
Train a multi-exit network on labelled data, or put exits on your own. Then choose its criterion
and temperatures, calibrate it on samples that nothing was fitted to, export one graph a segment,
check the graphs against torch, and write the bundle and a report.
Needs: pip install 'delen[{EXTRA}]'.

Data: a folder with one folder of images (or .wav recordings) a class, perhaps below train/, val/,
calibration/ and test/; a CSV of texts and labels; CIFAR-10; or a dataset of torchvision.
A build that was killed goes on from its last checkpoint when it is started again.

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
    _add_most_used(parser.add_argument_group("what matters first"))
    _add_data(parser.add_argument_group("reading data").add_argument)
    _add_network(parser.add_argument_group("the network and its exits"))
    _add_training(parser.add_argument_group("training"))
    _add_bundle(parser.add_argument_group("calibration, export and the bundle").add_argument)
    defaults = {field.name: field.default for field in fields(BuildSpec)}
    parser.set_defaults(**{name: value for name, value in defaults.items() if value is not MISSING})


def _add_most_used(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--data", type=Path, required=True, metavar="PATH", help="folder or file of the data")
    add("--output", type=Path, required=True, metavar="DIR", help="the bundle's folder")
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--network",
        metavar="NAME",
        help="a network of the zoo (default: a small one for the kind of data)",
    )
    which.add_argument(
        "--backbone",
        metavar="PLACE",
        help="your own: FILE.py:FUNCTION or MODULE:FUNCTION that returns a torch classifier",
    )


def _add_data(add: Callable[..., Any]) -> None:
    add(
        "--kind",
        metavar="KIND",
        help="images, audio, texts, cifar10, fsdd or torchvision:NAME (default: by what is there)",
    )
    add(
        "--size",
        metavar="SIZE",
        help="size of an input: HEIGHTxWIDTH of images, samples of audio, bytes of texts "
        "(default: the network's)",
    )
    add(
        "--sample-rate",
        type=_at_least_one,
        metavar="HZ",
        help="sample rate of audio (default: the network's)",
    )
    add("--text-column", metavar="NAME", help="the CSV column of texts (default: text)")
    add("--label-column", metavar="NAME", help="the CSV column of labels (default: label)")
    add("--split-column", metavar="NAME", help="the CSV column with each text's part")
    add(
        "--group-by",
        metavar="REGEX",
        help="files for whose names it finds the same text (a track, a speaker) stay in one part",
    )
    add("--cache", type=Path, metavar="DIR", help="keep decoded files here, for data beyond memory")
    add(
        "--max-unreadable",
        type=_share,
        metavar="SHARE",
        help="share of the files that may be unreadable; they are named and left out "
        "(default: 0.01)",
    )


def _add_network(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--list-networks", action=_ListNetworks, nargs=0, help="show the zoo")
    where = group.add_mutually_exclusive_group()
    where.add_argument(
        "--at",
        type=_names,
        metavar="LAYERS",
        help="exits of --backbone after these layers, with commas between",
    )
    where.add_argument(
        "--exits", type=_at_least_one, metavar="N", help="number of exits of --backbone"
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
        help="early heads of --backbone: a mean over all places (the default), or a convolution "
        "before it, which is more accurate on shallow features and costs more",
    )
    group.add_argument(
        "--mean",
        type=_numbers,
        metavar="M,M,M",
        help="mean that normalises images for --backbone (default: ImageNet's)",
    )
    group.add_argument(
        "--std", type=_numbers, metavar="S,S,S", help="standard deviation, in the same way"
    )
    group.add_argument(
        "--pretrained",
        action="store_true",
        help="start with the published weights of --network",
    )


def _add_training(group: argparse._ArgumentGroup) -> None:
    how = group.add_mutually_exclusive_group()
    how.add_argument("--epochs", type=_at_least_one, metavar="N", help="passes over the data")
    how.add_argument(
        "--quick",
        action="store_true",
        help=f"{QUICK_EPOCHS} epochs: a bundle to try things with, several points less accurate",
    )
    how.add_argument(
        "--weights", type=Path, metavar="FILE", help="use these trained weights, train nothing"
    )
    add = group.add_argument
    add("--batch-size", type=_at_least_one, metavar="N", help="samples of a training step")
    add(
        "--frozen",
        action="store_true",
        help="train the heads alone and leave the backbone as it is",
    )
    add(
        "--no-mirror",
        action="store_true",
        help="never mirror images in training: for digits, text, signs",
    )
    add("--seed", type=_seed, metavar="N", help="seed of weights, splits and order (default: 0)")
    add("--device", choices=("auto", "cpu", "cuda"), help="device to train on (default: auto)")
    add("--threads", type=_at_least_one, metavar="N", help="CPU threads (default: torch's choice)")
    add(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="kept while training, to go on from (default: OUTPUT.checkpoint, removed at the end)",
    )
    add("--save-weights", type=Path, metavar="FILE", help="keep the trained weights for --weights")


def _add_bundle(add: Callable[..., Any]) -> None:
    add("--name", help="name of the model (default: the folder's)")
    add("--model-version", metavar="VERSION", help="version of the model (default: 1)")
    add("--description", metavar="TEXT", help="one sentence on the model")
    add(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        help="precision of weights; the bundle is calibrated in it (default: fp32)",
    )
    add(
        "--runtime",
        choices=("onnx", "torch"),
        help="runtime of the graphs; torch is for networks that do not export to ONNX "
        "(default: onnx)",
    )
    add("--max-batch", type=_at_least_one, metavar="N", help="largest batch (default: 32)")
    add(
        "--floor",
        type=_share,
        metavar="ACCURACY",
        help="refuse a bundle that cannot guarantee this min_accuracy at level 0.95",
    )
    add("--overwrite", action="store_true", help="replace the bundle in --output")
    add("--json", action="store_true", help="print the figures as JSON")


class _ListNetworks(argparse.Action):
    """Prints the zoo and ends, as --version does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        _need_extra()
        from multiexit_models.build import list_networks

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


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 1 << 63:
        raise ValueError(text)
    return value


def _numbers(text: str) -> tuple[float, ...]:
    numbers = tuple(float(part) for part in text.split(","))
    if not all(map(isfinite, numbers)):
        raise ValueError(text)
    return numbers


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


_at_least_one.__name__ = "whole number above 0"
_share.__name__ = "share from 0 to 1"
_seed.__name__ = "whole number of at least 0"
_numbers.__name__ = "list of numbers"


def run(args: argparse.Namespace) -> int:
    """Build as ``args`` say and print a table of the exits; the command's exit status.

    Raises MissingExtra when torch or another part of the extra is not installed, InvalidInput for
    options that contradict, and all that ``build`` raises but for a training that diverges. SIGTERM
    ends it as an exception does, so that no unfinished file stays.
    """
    spec = BuildSpec(**{field.name: getattr(args, field.name) for field in fields(BuildSpec)})
    try:
        with _exit_on_sigterm(), closing(Bar()) as bar:
            bar.stage("loading torch")
            _need_extra()
            from multiexit_models.build import build

            bundle = build(spec, bar)
    except FloatingPointError as error:
        print(f"delen: training failed: {error}; try another --seed", file=sys.stderr)
        return 1
    _print(bundle, args.json)
    return 0


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    def end(*_: object) -> None:
        raise SystemExit(TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _need_extra() -> None:
    for module in NEEDED:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            missing = error.name or module
            raise MissingExtra(_PACKAGES.get(missing, missing), EXTRA) from error


def _print(bundle: Bundle, as_json: bool) -> None:
    from multiexit_models.report import REPORT, exit_table

    if not as_json:
        print(f"{bundle.name} {bundle.manifest.version} in {bundle.path}")
        if (bundle.path / REPORT).is_file():
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
