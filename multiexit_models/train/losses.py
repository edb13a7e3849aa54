"""What training minimises: the losses of all exits together."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from delen.errors import InvalidInput
from multiexit_models.train.recipe import Recipe


def exit_weights(recipe: Recipe, exits: int) -> tuple[float, ...]:
    """The weight of the loss of each of ``exits`` exits.

    Raises InvalidInput when the recipe has weights for another number of exits.
    """
    if recipe.exit_weights is None:
        return tuple((index + 1) / exits for index in range(exits))
    if len(recipe.exit_weights) != exits:
        raise InvalidInput(
            f"exit_weights has {len(recipe.exit_weights)} numbers, and the network has {exits} "
            "exits; give one number for each",
            "exit_weights",
        )
    return recipe.exit_weights


def joint_loss(logits: Sequence[Tensor], labels: Tensor, recipe: Recipe) -> Tensor:
    """Σ over exits of weight x (cross-entropy, and KL to the detached last exit).

    ``logits``: one float32 ``[batch, classes]`` for each exit; ``labels``: int64 ``[batch]``. The
    last exit has its cross-entropy alone. The sum over exits is that of Huang et al.,
    "Multi-Scale Dense Networks" (ICLR 2018), section 4; self-distillation as in Zhang et al.,
    "Be Your Own Teacher" (ICCV 2019), section 3.
    """
    temperature, share = recipe.distil_temperature, recipe.distil_share
    teacher = F.softmax(logits[-1].detach() / temperature, dim=1)
    total = logits[-1].new_zeros(())
    weights = exit_weights(recipe, len(logits))
    for index, (weight, exit_logits) in enumerate(zip(weights, logits, strict=True)):
        loss = F.cross_entropy(exit_logits, labels, label_smoothing=recipe.label_smoothing)
        if index < len(logits) - 1:
            student = F.log_softmax(exit_logits / temperature, dim=1)
            divergence = F.kl_div(student, teacher, reduction="batchmean") * temperature**2
            loss = (1 - share) * loss + share * divergence
        total = total + weight * loss
    return total
