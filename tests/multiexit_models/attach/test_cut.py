from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="models need torch: delen[train]")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from delen.errors import InvalidInput  # noqa: E402
from multiexit_models.attach.cut import split  # noqa: E402
from multiexit_models.attach.cut_points import cut_points, find, read  # noqa: E402

SAMPLE = torch.linspace(-1, 1, 6).reshape(1, 6)


class LongSkip(nn.Module):
    """The stem's output is added again at the end, across two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.classifier = nn.Linear(8, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        stem = self.stem(inputs)
        hidden = torch.relu(self.first(stem))
        return self.classifier(self.second(hidden) + stem)


class Sizes(nn.Module):
    """Takes the batch's size and another at the start, and needs both at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.mixing = nn.Conv2d(4, 4, 1)
        self.classifier = nn.Linear(4 * 16, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        batch, height = inputs.shape[0], inputs.size(2)
        hidden = self.mixing(self.convolution(inputs))
        return self.classifier(hidden.reshape(batch, 4 * height * height))


class Twice(nn.Module):
    """One layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.classifier = nn.Linear(6, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.layer(torch.relu(self.layer(inputs))))


class HiddenWrite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits = self.layer(inputs)
        logits.add_(1)
        return logits


class Returning(nn.Module):
    def forward(self, inputs: torch.Tensor) -> object:
        return inputs, inputs


class Windows(nn.Module):
    """Folds an axis into the batch between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.fold = nn.Flatten(0, 1)
        self.layer = nn.Linear(3, 3)
        self.unfold = nn.Unflatten(0, (-1, 2))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.unfold(self.layer(self.fold(inputs.reshape(-1, 2, 3)))).flatten(1)


def chained(parts: list[nn.Module], inputs: torch.Tensor) -> torch.Tensor:
    for part in parts:
        inputs = part(inputs)
    return inputs


def all_parts(module: nn.Module, sample: torch.Tensor) -> list[nn.Module]:
    cuttable = read(module, sample)
    return split(cuttable, cuttable.places, sample)


def test_places_are_where_one_tensor_is_needed() -> None:
    points = cut_points(LongSkip(), SAMPLE)
    assert [(point.name, point.shape) for point in points] == [("stem", (8,)), ("add", (8,))]
    macs = 6 * 8 + 2 * 8 * 8 + 8 * 3
    assert points[0].macs_share == pytest.approx(6 * 8 / macs)
    assert points[1].macs_share == pytest.approx(1 - 8 * 3 / macs)


def test_a_skip_across_the_cut_is_refused_by_name() -> None:
    cuttable = read(LongSkip(), SAMPLE)
    with pytest.raises(InvalidInput) as refused:
        find(cuttable, "first")
    for named in ("after first", "from stem to `add`", "are after stem and add"):
        assert named in str(refused.value)
    assert refused.value.field == "at"


def test_names_of_blocks_and_of_what_ends_them_mean_one_place() -> None:
    module = nn.Sequential(nn.Sequential(nn.Linear(6, 4), nn.ReLU()), nn.Linear(4, 3))
    cuttable = read(module, SAMPLE)
    assert [place.point.name for place in cuttable.places] == ["0.0", "0"]
    assert find(cuttable, "0.1") is find(cuttable, "0")


@pytest.mark.parametrize(
    ("module", "name", "problem"),
    [
        (LongSkip(), "classifier", "the module's own end"),
        (LongSkip(), "stemm", "no place 'stemm'; similar names: stem"),
        (Twice(), "layer", r"used at several places.*\(layer_0, layer_1\)"),
        (nn.Linear(6, 3), "0", "no other place"),
        (Windows(), "fold", r"it returns float32 \[4, 3\] for a batch of 2"),
    ],
)
def test_other_names_are_refused_with_the_reason(module, name: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        find(read(module, SAMPLE), name)


def test_a_place_inside_what_is_kept_whole_is_refused_with_the_cause() -> None:
    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 6)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.inner(inputs) if inputs.sum() > 9 else inputs

    with pytest.raises(
        InvalidInput, match=r"0.inner is impossible: it is inside 0, .* `return self.inner"
    ):
        find(read(nn.Sequential(Deciding(), nn.Linear(6, 3)), SAMPLE), "0.inner")


def test_the_batch_stays_dynamic_where_sizes_cross_a_cut() -> None:
    module, sample = Sizes().eval(), torch.rand(1, 3, 4, 4)
    parts = all_parts(module, sample)
    assert len(parts) == 4  # after each convolution and after the reshape
    for batch in (1, 2, 5):
        inputs = torch.rand(batch, 3, 4, 4)
        assert torch.equal(chained(parts, inputs), module(inputs))
    features = parts[0](sample)
    exported = torch.export.export(
        nn.Sequential(*parts[1:]), (features.repeat(2, 1, 1, 1),),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=8)},),
    )  # fmt: skip
    assert exported.module()(features.repeat(7, 1, 1, 1)).shape == (7, 3)


def test_a_layer_used_twice_is_shared_by_the_parts() -> None:
    module = Twice().eval()
    parts = all_parts(module, SAMPLE)
    assert torch.equal(chained(parts, SAMPLE), module(SAMPLE))
    weights = {id(weight) for part in parts for weight in part.parameters()}
    assert weights == {id(weight) for weight in module.parameters()}


def test_parts_follow_train_and_eval() -> None:
    module = nn.Sequential(nn.Linear(6, 50), nn.BatchNorm1d(50), nn.Dropout(), nn.Linear(50, 3))
    parts = nn.ModuleList(all_parts(module, SAMPLE))
    inputs = torch.randn(8, 6)
    for training in (False, True):
        parts.train(training)
        assert module[1].training is module[2].training is training
        torch.manual_seed(1)
        given = chained(list(parts), inputs)
        torch.manual_seed(1)
        assert torch.equal(given, module(inputs))
    assert module[1].num_batches_tracked == 2  # one statistic, not a copy


def test_a_step_that_writes_in_place_leaves_the_features_before_it() -> None:
    module = nn.Sequential(nn.Linear(6, 8), nn.Identity(), nn.ReLU(inplace=True), nn.Linear(8, 3))
    cuttable = read(module, SAMPLE)
    first, second = split(cuttable, [find(cuttable, "0")], SAMPLE)
    features = first(SAMPLE)
    before = features.clone()
    loss = (features**2).sum() + second(features).sum()
    assert torch.equal(features, before)
    loss.backward()  # which torch refuses where what it kept was changed


def test_weights_made_anew_each_time_are_no_obstacle() -> None:
    class Standardised(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return F.linear(inputs, self.weight - self.weight.mean(), self.bias)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            scale = torch.exp(self.scale)
            return self.second(self.first(inputs) * scale) * scale

    net = nn.Sequential(Standardised(6, 6), Net()).eval()
    parts = all_parts(net, SAMPLE)
    assert len(parts) > 3
    assert torch.equal(chained(parts, SAMPLE), net(SAMPLE))


@pytest.mark.parametrize(
    ("module", "sample", "problem"),
    [
        (HiddenWrite(), SAMPLE, "`add_` in its forward changes a tensor in place"),
        (Returning(), SAMPLE, "serves classifiers.*returns a tuple"),
        (nn.Linear(6, 3), SAMPLE[0], r"one input \[1, ...\]"),
        (nn.Linear(6, 3), SAMPLE.repeat(2, 1), r"one input \[1, ...\]"),
        (nn.Linear(5, 3), SAMPLE, "cannot run a batch of 2 inputs like the sample"),
        (nn.Sequential(nn.Unflatten(0, (1, 1)), nn.Flatten(0, 1)), SAMPLE, "a batch of 2"),
    ],
)
def test_modules_and_samples_that_do_not_fit_are_refused(module, sample, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        cut_points(module, sample)


def test_a_module_that_is_random_in_evaluation_is_refused() -> None:
    class Noisy(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs + torch.rand_like(inputs)

    module = nn.Sequential(nn.Linear(6, 4), Noisy(), nn.Linear(4, 3))
    with pytest.raises(InvalidInput, match="random in evaluation"):
        all_parts(module, SAMPLE)
