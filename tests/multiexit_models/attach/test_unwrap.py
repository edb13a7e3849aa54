"""Wrapped networks are unwrapped; what cannot be cut gets one sentence that names the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="models need torch: delen[train]")

from torch import nn  # noqa: E402

from delen.errors import InvalidInput  # noqa: E402
from multiexit_models.attach import attach_exits  # noqa: E402

SAMPLE = torch.rand(1, 3, 16, 16)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.b(torch.relu(self.a(x)))).mean((2, 3)))


class Answering(nn.Module):
    """Returns what ``answer`` makes of the logits."""

    def __init__(self, answer: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.net, self.answer = Net(), answer

    def forward(self, x: torch.Tensor) -> Any:
        return self.answer(self.net(x))


def hugging_face() -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="needs delen[wav2vec2]")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=2
    )
    return transformers.ResNetForImageClassification(config)


@pytest.mark.parametrize(
    "make",
    [
        Net,
        lambda: torch.compile(Net()),
        lambda: nn.DataParallel(Net()),
        lambda: torch.compile(nn.DataParallel(Net())),
        lambda: Answering(lambda logits: {"loss": None, "logits": logits}),
        hugging_face,
    ],
    ids=["plain", "compiled", "parallel", "both", "dictionary", "hugging face"],
)
def test_the_network_inside_gets_exits(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    module = make().eval()
    network = attach_exits(module, SAMPLE, 2, exits=2).eval()
    with torch.no_grad():
        given = getattr(module, "_orig_mod", module)(SAMPLE)
        logits = given if isinstance(given, torch.Tensor) else given["logits"]
        assert torch.allclose(network(SAMPLE)[-1], logits, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda: torch.jit.script(Net().eval()), "give the Python module"),
        (lambda: torch.jit.trace(Net().eval(), SAMPLE), "give the Python module"),
        (lambda: torch.export.export(Net().eval(), (SAMPLE,)), "give the Python module"),
        (lambda: torch.export.export(Net().eval(), (SAMPLE,)).module(), "give the Python module"),
        (lambda: Net().state_dict(), "not a torch module"),
        (lambda: Answering(lambda logits: [{"boxes": logits}]), "serves classifiers"),
        (lambda: Answering(lambda logits: {"out": logits, "aux": logits}), "out, aux"),
        (lambda: Answering(lambda logits: (logits, logits)), "serves classifiers"),
        (lambda: nn.Conv2d(3, 5, 1), "serves classifiers"),
    ],
    ids=["scripted", "traced", "program", "exported", "weights", "detector", "segmenter", "two",
         "map"],
)  # fmt: skip
def test_what_cannot_be_cut_is_refused_with_the_way_out(
    make: Callable[[], Any], remedy: str
) -> None:
    with pytest.raises(InvalidInput, match=remedy) as refused:
        attach_exits(make(), SAMPLE, 2, exits=2)
    assert refused.value.field == "module"
