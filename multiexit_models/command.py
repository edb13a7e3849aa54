"""``delen build``: from labelled data to a served bundle, on one's own machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from multiexit_models.options import (
    EXTRA,
    at_least_one,
    exit_on_sigterm,
    names,
    need_extra,
    numbers,
    print_bundle,
    seed,
    share,
    sizes,
)
from multiexit_models.progress import Bar
from multiexit_models.spec import QUICK_EPOCHS, BuildSpec
from multiexit_models.spec_check import check_spec

DESCRIPTION = f"""\
Train a multi-exit network on labelled data, or put exits on your own. Then choose its criterion
and temperatures, calibrate it on samples that nothing was fitted to, export one graph a segment,
check the graphs against torch, and write the bundle and a report.
Needs: pip install 'delen[{EXTRA}]'.

Data: a folder with one folder of images (or .wav recordings) a class, perhaps with one a track or
speaker in it, perhaps below train/, val/, calibration/ and test/; a CSV of texts and labels;
CIFAR-10; or a dataset of torchvision.
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
        help="a network of the zoo, or an image classifier of torchvision or timm by its name "
        "there (default: a small one for the kind of data)",
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
        "--sizes",
        type=sizes,
        metavar="16,24,32",
        help="several sizes of images (squares, or HEIGHTxWIDTH): the network "
        "is trained at all of them, and calibrated at each; a request runs at the one that its "
        "bounds leave room for",
    )
    add(
        "--sample-rate",
        type=at_least_one,
        metavar="HZ",
        help="sample rate of audio (default: the network's)",
    )
    add("--text-column", metavar="NAME", help="the CSV column of texts (default: text)")
    add("--label-column", metavar="NAME", help="the CSV column of labels (default: label)")
    add("--split-column", metavar="NAME", help="the CSV column with each text's part")
    add(
        "--group-by",
        metavar="REGEX",
        help="files for whose names it finds the same text (a track, a speaker) are a group: they "
        "stay in one part, and floors are certified over groups (default: the folders in classes)",
    )
    add("--cache", type=Path, metavar="DIR", help="keep decoded files here, for data beyond memory")
    add(
        "--max-unreadable",
        type=share,
        metavar="SHARE",
        help="share of the files that may be unreadable; they are named and left out "
        "(default: 0.01)",
    )


def _add_network(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--list-networks", action=_ListNetworks, nargs=0, help="show the zoo")
    where = group.add_mutually_exclusive_group()
    where.add_argument(
        "--at",
        type=names,
        metavar="LAYERS",
        help="exits after these layers of --backbone or of a network of torchvision or timm, with "
        "commas between",
    )
    where.add_argument(
        "--exits", type=at_least_one, metavar="N", help="their number, in place of --at"
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
        help="their early heads: a mean over all places (the default), or a convolution before it, "
        "which is more accurate on shallow features and costs more",
    )
    group.add_argument(
        "--mean",
        type=numbers,
        metavar="M,M,M",
        help="mean that normalises images for them (default: the library's, else ImageNet's)",
    )
    group.add_argument(
        "--std", type=numbers, metavar="S,S,S", help="standard deviation, in the same way"
    )
    group.add_argument(
        "--pretrained",
        action="store_true",
        help="start with the published weights of --network",
    )
    group.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="start with these weights: a state dict (of torch or safetensors) of the network "
        "without exits, such as torchvision's and timm's own, and the exits are trained; or a file "
        "of --save-weights, and nothing is trained",
    )


def _add_training(group: argparse._ArgumentGroup) -> None:
    how = group.add_mutually_exclusive_group()
    how.add_argument("--epochs", type=at_least_one, metavar="N", help="passes over the data")
    how.add_argument(
        "--quick",
        action="store_true",
        help=f"{QUICK_EPOCHS} epochs: a bundle to try things with, several points less accurate",
    )
    add = group.add_argument
    add("--batch-size", type=at_least_one, metavar="N", help="samples of a training step")
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
    add("--seed", type=seed, metavar="N", help="seed of weights, splits and order (default: 0)")
    add("--device", choices=("auto", "cpu", "cuda"), help="device to train on (default: auto)")
    add("--threads", type=at_least_one, metavar="N", help="CPU threads (default: torch's choice)")
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
    add(
        "--unseen-calibration",
        action="store_true",
        help="declare that weights from elsewhere never saw the calibration data; without it, or "
        "calibration data of their own, nothing is guaranteed of them",
    )
    add("--max-batch", type=at_least_one, metavar="N", help="largest batch (default: 32)")
    add(
        "--floor",
        type=share,
        metavar="ACCURACY",
        help="refuse a bundle that cannot guarantee this min_accuracy at level 0.95",
    )
    add("--overwrite", action="store_true", help="replace the bundle in --output")
    add("--json", action="store_true", help="print the figures as JSON")


class _ListNetworks(argparse.Action):
    """Prints the zoo and ends, as --version does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        need_extra()
        from multiexit_models.build import list_networks

        print(list_networks())
        parser.exit()


def run(args: argparse.Namespace) -> int:
    """Build as ``args`` say and print a table of the exits; the command's exit status.

    Raises MissingExtra when torch or another part of the extra is not installed, InvalidInput for
    options that contradict, and all that ``build`` raises but for a training that diverges. SIGTERM
    ends it as an exception does, so that no unfinished file stays.
    """
    spec = BuildSpec(**{field.name: getattr(args, field.name) for field in fields(BuildSpec)})
    try:
        with exit_on_sigterm(), closing(Bar()) as bar:
            check_spec(spec)
            bar.stage("loading torch")
            need_extra()
            from multiexit_models.build import build

            bundle = build(spec, bar)
    except FloatingPointError as error:
        print(f"delen: training failed: {error}; try another --seed", file=sys.stderr)
        return 1
    print_bundle(bundle, args.json)
    return 0
