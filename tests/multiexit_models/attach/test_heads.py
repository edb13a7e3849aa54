from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="models need torch: delen[train]")

from delen.errors import InvalidInput  # noqa: E402
from multiexit_models.attach import heads  # noqa: E402


@pytest.mark.parametrize("shape", [(5, 7, 6), (9, 4), (11,)])
def test_the_default_head_is_one_linear_layer_on_normed_means(shape: tuple[int, ...]) -> None:
    head = heads.pooled_head(shape, 3)
    features = 1000 * torch.randn(8, *shape) + 5
    _, norm, linear = head
    means = heads.pooled(features)
    normed = (means - means.mean(0)) / means.std(0, unbiased=False)
    assert torch.allclose(head(features), linear(normed), atol=1e-4)
    assert sum(p.numel() for p in linear.parameters()) == 3 * norm.num_features + 3


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 3, 5), (4, 1, 1)])
def test_the_image_head_takes_any_size(shape: tuple[int, ...]) -> None:
    assert heads.image_head(shape, 3).eval()(torch.randn(2, *shape)).shape == (2, 3)


def test_features_that_no_head_is_known_for_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"\[2, 3, 4, 5\].*give head="):
        heads.pooled_head((2, 3, 4, 5), 3)
    with pytest.raises(InvalidInput, match=r"\[channels, height, width\], not \[6\]"):
        heads.image_head((6,), 3)
