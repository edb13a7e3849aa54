"""``python -m benchmarks backbones``: backbones of torchvision and timm through ``delen build``.

Each has random weights and 1000 classes, and is built as a user would: ``delen build --backbone
net.py:make --exits 4`` on images of three classes, with a short training. Every build is a process
of its own, with a limit of memory and of time. A line has the side of the images, the seconds, the
multiply-adds up to each exit as a share of all, and the largest difference of a logit to torch's
as a share of the exit's largest logit; below it are the places of the exits. Or it has the sentence
that refuses the backbone. ``python -m benchmarks.backbones NAME ...`` builds some of them.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent, wrap

import numpy as np
from PIL import Image

from benchmarks.common import Figure, report
from delen.bundle.manifest import Manifest, load_bundle
from delen.profile.device import available_cores

EXITS = 4
SECONDS = 1800
BYTES = 12 << 30
AT_ONCE = 4
COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 40)}
IMAGES = 16
_PLACES = "exits after "
_TRAINING = "training ..."
_WIDTH = 96


@dataclass(frozen=True)
class Backbone:
    """A network of ``library``, and the side of its square images in pixels.

    ``options`` are keywords of the function that makes it, ``build`` those of the command.
    """

    library: str
    network: str
    side: int
    options: str = ""
    build: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return " ".join([self.library, self.network, *self.build])

    @property
    def source(self) -> str:
        """The file that ``--backbone`` names."""
        make = {"torchvision": "models.get_model", "timm": "create_model"}[self.library]
        call = f'{self.library}.{make}("{self.network}"{self.options})'
        return f"import {self.library}\n\n\ndef make():\n    return {call}\n"


def _of(library: str, names: str, side: int = 64, options: str = "") -> tuple[Backbone, ...]:
    return tuple(Backbone(library, name, side, options) for name in names.split())


BACKBONES = (
    *_of("torchvision", "resnet18 resnet50 mobilenet_v2 mobilenet_v3_small mnasnet1_0"),
    *_of("torchvision", "efficientnet_b0 regnet_y_400mf shufflenet_v2_x1_0 squeezenet1_1"),
    *_of("torchvision", "densenet121 convnext_tiny swin_t swin_v2_t"),
    Backbone("torchvision", "vgg11", 64, build=("--frozen",)),
    *_of("torchvision", "vit_b_16", options=", image_size=64"),
    *_of("torchvision", "maxvit_t", 224, ", input_size=(224, 224)"),
    *_of("torchvision", "googlenet", options=", init_weights=False"),
    *_of("torchvision", "googlenet", options=", init_weights=False, aux_logits=False"),
    *_of("torchvision", "inception_v3", 96, ", init_weights=False, aux_logits=False"),
    *_of("timm", "mobileone_s0 repvgg_a0 ghostnet_100 fastvit_t8 edgenext_xx_small"),
    *_of("timm", "mobilevit_xxs mobilenetv3_small_100 mobilenetv4_conv_small poolformer_s12"),
    *_of("timm", "vit_tiny_patch16_224 deit_tiny_patch16_224", options=", img_size=64"),
    *_of("timm", "deit_tiny_distilled_patch16_224 mixer_s32_224", options=", img_size=64"),
    *_of("timm", "cait_xxs24_224 efficientformerv2_s0", options=", img_size=64"),
    *_of("timm", "efficientformer_l1 levit_128s xcit_nano_12_p16_224", 224),
)


@dataclass(frozen=True)
class Outcome:
    """What became of a build: its manifest, or why there is none.

    ``said`` are the lines of the command. ``status`` is None where it ran out of time.
    """

    backbone: Backbone
    status: int | None
    said: Sequence[str]
    seconds: float
    manifest: Manifest | None

    @property
    def trained(self) -> bool:
        return _TRAINING in self.said

    @property
    def in_a_sentence(self) -> bool:
        """Whether the command refused it as it should: no crash, no limit, nothing unexpected."""
        last = self.said[-1] if self.said else ""
        return self.status == 1 and last.startswith("delen: ") and ": unexpected " not in last

    def text(self) -> str:
        head = f"{self.backbone.name:<38} {self.backbone.side:>3} px {self.seconds:>4.0f} s  "
        if self.manifest is None:
            when = "after the training began" if self.trained else "before the training"
            return f"{head}refused {when}\n{_indented(self._refusal())}"
        exits = self.manifest.provenance["exits"]
        shares = " ".join(f"{exit['macs_share']:4.0%}" for exit in exits)
        export = self.manifest.provenance["export"]
        pairs = zip(export["max_logit_difference"], export["max_logit"], strict=True)
        difference = max(far / max(1.0, largest) for far, largest in pairs)
        places = [line for line in self.said if line.startswith(_PLACES)]
        return f"{head}{shares}  {difference:.0e}\n{_indented(places[0])}"

    def _refusal(self) -> str:
        if self.status is None:
            return f"no end in {SECONDS} s"
        last = self.said[-1] if self.said else "nothing was said"
        return last.removeprefix("delen: ") if self.in_a_sentence else f"{self.status}: {last}"


def _indented(text: str) -> str:
    return indent("\n".join(wrap(text, _WIDTH)), "    ")


def write_images(folder: Path) -> None:
    """Noisy plain images, one folder a colour."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(IMAGES):
            pixels = np.array(colour) + rng.normal(0, 60, (64, 64, 3))
            image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            image.save(folder / name / f"{number}.png")


def attempt(backbone: Backbone, photos: Path) -> Outcome:
    """Build ``backbone`` on ``photos`` in a process of its own."""
    side = backbone.side
    command = [str(Path(sys.executable).with_name("delen")), "build", "--data", str(photos)]
    command += ["--output", "made", "--backbone", "net.py:make", "--exits", str(EXITS)]
    command += ["--size", f"{side}x{side}", "--epochs", "1", "--batch-size", "8", *backbone.build]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "net.py").write_text(backbone.source)
        began = time.monotonic()
        status, said = _run(command, folder)
        seconds = time.monotonic() - began
        manifest = load_bundle(Path(folder, "made")).manifest if status == 0 else None
    lines = [line.strip() for line in re.split(r"[\r\n]+", said)]
    return Outcome(backbone, status, [line for line in lines if line], seconds, manifest)


def _run(command: Sequence[str], folder: str) -> tuple[int | None, str]:
    """The exit status of ``command``, None where it ran out of time, and what it said."""
    try:
        ended = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES)),
        )
    except subprocess.TimeoutExpired as error:
        return None, (error.stderr or b"").decode(errors="replace")
    return ended.returncode, ended.stderr


def main(backbones: Sequence[Backbone] = BACKBONES) -> list[Figure]:
    at_once = min(AT_ONCE, available_cores())
    outcomes = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(at_once) as pool:
        photos = Path(folder, "photos")
        write_images(photos)
        for outcome in pool.map(lambda backbone: attempt(backbone, photos), backbones):
            print(outcome.text(), flush=True)
            outcomes.append(outcome)
    refused = [outcome for outcome in outcomes if outcome.manifest is None]
    built, trained = len(outcomes) - len(refused), sum(each.trained for each in refused)
    return report(
        f"{len(outcomes)} backbones, {at_once} builds at once with a thread each",
        [
            Figure("built, and equal to torch", (built,), ""),
            Figure("refused in a sentence", (sum(each.in_a_sentence for each in refused),), ""),
            Figure("refused otherwise", (sum(not each.in_a_sentence for each in refused),), "", 0),
            Figure("refused after the training began", (trained,), "", 0),
        ],
    )


if __name__ == "__main__":
    named = sys.argv[1:]
    main([each for each in BACKBONES if not named or each.network in named])
