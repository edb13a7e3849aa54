"""The optimiser: Muon for matrices, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from delen.errors import InvalidInput
from multiexit_models.train.recipe import Recipe


def lr_factor(progress: float, warm_up: float = 0.1) -> float:
    """Linear warm-up over the first tenth of training, then linear to zero."""
    return progress / warm_up if progress < warm_up else (1 - progress) / (1 - warm_up)


def as_matrix(weight: Tensor) -> Tensor:
    """A view ``[outputs, rest]`` of a linear weight, or of a channels-last convolution's."""
    channels_last = weight.permute(0, 2, 3, 1) if weight.ndim == 4 else weight
    return channels_last.view(weight.shape[0], -1)


def _laid_out(tensor: Tensor) -> Tensor:
    """``tensor`` in the layout that ``as_matrix`` needs for a view."""
    channels_last = tensor.ndim == 4
    return tensor.contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )


def _is_matrix(weight: Tensor) -> bool:
    return weight.ndim >= 2 and weight.shape[0] > 1 and weight[0].numel() > 1


class MatrixMuon:
    """torch's Muon for every weight that is a matrix, or can be seen as one.

    torch.optim.Muon accepts matrices alone. The views share their storage with the convolutions'
    weights, so that a step on the view is a step on the weight. AdamW steps the rest (biases,
    norms), and the embeddings, whose rows are looked up instead of multiplied. Muon: Jordan et al.,
    2024; step size matched to AdamW: Liu et al., 2502.16982, section 2.2.

    Weights that need no gradient stay as they are. Four-dimensional ones are laid out
    channels-last in place. Raises InvalidInput when there is nothing to train.
    """

    def __init__(self, module: nn.Module, recipe: Recipe) -> None:
        weights = [p for p in module.parameters() if p.requires_grad]
        looked_up = {
            id(p)
            for layer in module.modules()
            if isinstance(layer, nn.Embedding | nn.EmbeddingBag)
            for p in layer.parameters()
        }
        matrices = [p for p in weights if _is_matrix(p) and id(p) not in looked_up]
        for weight in matrices:
            weight.data = _laid_out(weight.data)
        self._matrices = [(p, nn.Parameter(as_matrix(p.data))) for p in matrices]
        taken = {id(p) for p in matrices}
        rest = [p for p in weights if id(p) not in taken]
        self._optimisers: dict[str, torch.optim.Optimizer] = {}
        if matrices:
            self._optimisers["muon"] = torch.optim.Muon(
                [view for _, view in self._matrices],
                lr=recipe.muon_lr,
                weight_decay=recipe.muon_weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        if rest:
            self._optimisers["adam"] = torch.optim.AdamW(rest, lr=recipe.adam_lr, weight_decay=0.0)
        if not self._optimisers:
            raise InvalidInput("the network has no weights that can be trained", "network")
        self._base_lrs = {"muon": recipe.muon_lr, "adam": recipe.adam_lr}

    def step(self, lr_factor: float) -> None:
        """One step at ``lr_factor`` times the recipe's rates; gradients are cleared."""
        for weight, view in self._matrices:
            if weight.grad is None:
                continue
            view.grad = as_matrix(_laid_out(weight.grad))
            weight.grad = None
        for name, optimiser in self._optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = self._base_lrs[name] * lr_factor
            optimiser.step()
            optimiser.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """The state of the next step beside weights and gradients."""
        return {name: optimiser.state_dict() for name, optimiser in self._optimisers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the optimiser of ``state_dict`` was; it must be of the same network."""
        for name, optimiser in self._optimisers.items():
            optimiser.load_state_dict(state[name])
