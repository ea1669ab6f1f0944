"""Tests of bounds of Lipschitz constants: norms on segments, operator norms against dense matrices, the metric."""

from dataclasses import replace

import pytest
import torch
from random_tensors import points, seeded
from torch import Tensor, nn

from evaluation import Context, EvaluationError, Settings, empirical_lipschitz, evaluate
from evaluation.metrics.bounds import largest_on_segments, layer_products, operator_norms

SHAPE = (3, 8, 8)


class Chain(nn.Sequential):
    """Convolutions with leaky ReLU and a linear layer; each activation has slopes of at most 1."""

    def __init__(self, side: int = 8) -> None:
        layers = [nn.Conv2d(3, 6, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(6, 4, 4, stride=2, padding=1)]
        super().__init__(*layers, nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(4 * (side // 2) ** 2, 1))


class Unused(Chain):
    """A chain with a layer that it does not call."""

    def __init__(self) -> None:
        super().__init__(32)
        self.left = nn.ModuleDict({"over": nn.Linear(3, 3)})

    def forward(self, images: Tensor) -> Tensor:
        h = images
        for layer in list(self)[:-1]:
            h = layer(h)
        return h


def test_the_largest_norm_of_a_convex_function_is_at_an_end() -> None:
    """f(x) = |x|^2 / 2 has the gradient x."""
    x, y = points(5, 1, SHAPE).double(), 2 * points(5, 2, SHAPE).double()
    found = largest_on_segments(lambda images: images.square().flatten(1).sum(1) / 2, x, y, points=5)
    expected = torch.maximum(x.flatten(1).norm(dim=1), y.flatten(1).norm(dim=1))
    torch.testing.assert_close(found, expected)


def test_a_kink_between_the_ends_is_found() -> None:
    """In the first pixel t the slope is 1 between 0.4 and 0.6, otherwise 0."""
    x, y = torch.zeros(1, *SHAPE), torch.zeros(1, *SHAPE)
    y[0, 0, 0, 0] = 1

    def critic(images: Tensor) -> Tensor:
        t = images[:, 0, 0, 0]
        return torch.relu(t - 0.4) - torch.relu(t - 0.6)

    assert largest_on_segments(critic, x, y).item() == pytest.approx(1)
    assert largest_on_segments(critic, x, y, points=2).item() == 0


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: nn.Conv2d(3, 5, 3, stride=2, padding=1), (3, 8, 8)),
        (lambda: nn.Conv2d(4, 6, 4, stride=2, padding=1, groups=2), (4, 6, 6)),
        (lambda: nn.ConvTranspose2d(4, 2, 4, stride=2, padding=1, groups=2), (4, 5, 5)),
        (lambda: nn.Linear(7, 3), (7,)),
    ],
)
def test_norms_of_layers_are_those_of_dense_matrices(layer, shape: tuple[int, ...]) -> None:
    network = seeded(lambda: nn.Sequential(layer()))
    image = torch.zeros(1, *shape)
    dense = torch.autograd.functional.jacobian(network.double(), image.double()).reshape(-1, image.numel())
    assert operator_norms(network.float(), image)["0"] == pytest.approx(
        float(torch.linalg.matrix_norm(dense, 2)), rel=1e-6
    )


def test_the_product_of_layer_norms_bounds_what_is_measured() -> None:
    critic = seeded(Chain).double()
    x, y = points(30, 1, SHAPE), points(30, 2, SHAPE)
    ratios, segments = empirical_lipschitz(critic, x, y), largest_on_segments(critic, x, y)
    assert (ratios <= segments).all()
    products = layer_products(critic, x[:1])
    assert segments.max() <= products.operators
    assert products.matrices < products.operators, "of a 3x3 kernel the operator's norm is the larger one"
    assert not any(layer._forward_pre_hooks for layer in critic)


@pytest.fixture
def context(drawn_context) -> Context:
    critic = seeded(lambda: Chain(32))
    return drawn_context(
        generated=(60, 1), reference=(80, 2), critic=critic, settings=Settings(lipschitz={"pairs": 20})
    )


def test_the_metric_compares_constants_with_their_bounds(context: Context) -> None:
    report = evaluate(["bounds", "elhist"], context)
    values = {key.removeprefix("bounds/"): value for key, value in report.values.items() if key.startswith("bounds/")}
    assert set(values) == {"ratio", "segment", "obeyed", "matrices", "operators"}
    assert values["obeyed"] == 1
    assert values["ratio"] < values["segment"] < values["operators"]
    assert values["ratio"] == pytest.approx(report.arrays["elhist/real_fake/ratio"].max()), "the same pairs"
    assert report.arrays["bounds/segment"].shape == (20,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"critic_is_conditional": True}, "class-conditional discriminator, expected an unconditional one"),
        ({"critic": lambda images, labels=None: images.flatten(1).sum(1)}, "got a critic that is a function"),
        ({"critic": Unused()}, "layers that it does not call: left.over"),
    ],
)
def test_what_has_no_product_is_refused(context: Context, changes: dict, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        evaluate(["bounds"], replace(context, **changes))
