"""Joint training of all exits with self-distillation from the last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multiexit_models.network import MultiExitNetwork, set_memory_format
from multiexit_models.recipe import Recipe


def as_matrix(weight: Tensor) -> Tensor:
    """A view ``[outputs, rest]`` of a linear weight, or of a channels-last convolution's."""
    channels_last = weight.permute(0, 2, 3, 1) if weight.ndim == 4 else weight
    return channels_last.view(weight.shape[0], -1)


def _memory_format(weight: Tensor) -> torch.memory_format:
    return torch.channels_last if weight.ndim == 4 else torch.contiguous_format


class MatrixMuon:
    """torch's Muon for every weight of rank ≥ 2, seen as a matrix.

    torch.optim.Muon takes matrices alone. The views share their storage with the convolutions'
    weights, so that a step on the view is a step on the weight. AdamW has the rest (biases,
    norms). Muon: Jordan et al., 2024; step size matched to AdamW: Liu et al., 2502.16982.
    """

    def __init__(self, module: nn.Module, recipe: Recipe) -> None:
        weights = [p for p in module.parameters() if p.requires_grad]
        self._matrices = [(p, nn.Parameter(as_matrix(p.data))) for p in weights if p.ndim >= 2]
        self._muon: torch.optim.Optimizer = torch.optim.Muon(
            [view for _, view in self._matrices],
            lr=recipe.muon_lr,
            weight_decay=recipe.muon_weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        self._adam: torch.optim.Optimizer = torch.optim.AdamW(
            [p for p in weights if p.ndim < 2], lr=recipe.adam_lr, weight_decay=0.0
        )
        self._base_lrs = [
            (group, group["lr"]) for opt in (self._muon, self._adam) for group in opt.param_groups
        ]

    def step(self, lr_factor: float) -> None:
        """One step at ``lr_factor`` times the recipe's rates; gradients are cleared."""
        for group, base in self._base_lrs:
            group["lr"] = base * lr_factor
        for weight, view in self._matrices:
            if weight.grad is None:
                continue
            view.grad = as_matrix(weight.grad.contiguous(memory_format=_memory_format(weight)))
            weight.grad = None
        self._muon.step()
        self._adam.step()
        self._muon.zero_grad()
        self._adam.zero_grad()


def lr_factor(progress: float, warm_up: float = 0.1) -> float:
    """Linear warm-up over the first tenth of training, then linear to zero."""
    return progress / warm_up if progress < warm_up else (1 - progress) / (1 - warm_up)


def joint_loss(logits: Sequence[Tensor], labels: Tensor, recipe: Recipe) -> Tensor:
    """Σ over exits of weight x (cross-entropy, and KL to the detached last exit).

    Self-distillation as in Zhang et al., "Be Your Own Teacher" (ICCV 2019).
    """
    temperature, share = recipe.distil_temperature, recipe.distil_share
    teacher = F.softmax(logits[-1].detach() / temperature, dim=1)
    total = torch.zeros(())
    for index, (weight, exit_logits) in enumerate(zip(recipe.exit_weights, logits, strict=True)):
        loss = F.cross_entropy(exit_logits, labels, label_smoothing=recipe.label_smoothing)
        if index < len(logits) - 1:
            student = F.log_softmax(exit_logits / temperature, dim=1)
            divergence = F.kl_div(student, teacher, reduction="batchmean") * temperature**2
            loss = (1 - share) * loss + share * divergence
        total = total + weight * loss
    return total


def augment(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Each image of ``[n, side, side, 3]`` cropped at its own offset, half of them mirrored."""
    count, side = images.shape[0], images.shape[1]
    channels_first = images.permute(0, 3, 1, 2).float()
    padded = F.pad(channels_first, (padding,) * 4, mode="reflect").to(torch.uint8)
    offsets = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
    rows = offsets[0] + torch.arange(side)
    columns = offsets[1] + torch.arange(side)
    mirrored = torch.rand(count, generator=generator) < 0.5
    columns[mirrored] = columns[mirrored].flip(1)
    batch = torch.arange(count)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]


def resize(images: Tensor, side: int) -> Tensor:
    """uint8 ``[n, s, s, 3]`` to uint8 ``[n, side, side, 3]``, bilinear with antialiasing."""
    if images.shape[1] == side:
        return images
    scaled = F.interpolate(
        images.permute(0, 3, 1, 2).float(), size=side, mode="bilinear", antialias=True
    )
    return scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Random index batches over ``count`` samples; the incomplete last one is left out."""
    order = torch.randperm(count, generator=generator)
    for start in range(0, count - size + 1, size):
        yield order[start : start + size]


def train(
    network: MultiExitNetwork,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    on_step: Callable[[int, int, float], None],
) -> None:
    """Train ``network`` in place on uint8 ``images [n, side, side, 3]`` and int64 ``labels [n]``.

    ``on_step(step, steps, loss)`` is called after each step. Raises FloatingPointError when the
    loss is no longer a number.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    set_memory_format(network, torch.channels_last)
    network.train()
    optimiser = MatrixMuon(network, recipe)
    full_side = images.shape[1]
    per_epoch = len(labels) // recipe.batch_size
    steps = per_epoch * recipe.epochs
    step = 0
    for epoch in range(recipe.epochs):
        small = epoch < recipe.small_share * recipe.epochs
        side = recipe.small_side if small else full_side
        for chosen in batches(len(labels), recipe.batch_size, generator):
            crops = augment(images[chosen], recipe.crop_padding, generator)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = network(resize(crops, side))
            loss = joint_loss([exit.float() for exit in logits], labels[chosen], recipe)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss.item()} at step {step} of {steps}")
            torch.autograd.backward(loss)
            optimiser.step(lr_factor((step + 1) / steps))
            step += 1
            on_step(step, steps, loss.item())
    network.eval()


def predict(network: MultiExitNetwork, images: Tensor, batch_size: int = 500) -> Tensor:
    """Logits of every exit for uint8 ``images``: float32 ``[exits, n, classes]``."""
    network.eval()
    with torch.no_grad():
        parts = [torch.stack(network(chunk)) for chunk in torch.split(images, batch_size)]
    return torch.cat(parts, dim=1)
