"""Bounds of a discriminator's Lipschitz constant: Jacobian norms on segments, and products of layer norms.

Between two images, |f(x) - f(y)| / ||x - y||_2 is at most the largest norm of f's gradient on the segment between them
(Sanyal et al. 2020, Proposition B.1). Over all images, a chain of layers with activations of slope at most 1 has at
most the product of its layers' norms (their Appendix C), each of the layer as an operator on its input. The product of
the norms of the weights as matrices (out, everything else), which spectral normalization sets to 1, can be smaller.
"""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from evaluation.context import Context
from evaluation.errors import EvaluationError
from evaluation.generalization.spectra import layer_spectra, weight_layers
from evaluation.images.checks import to_critic
from evaluation.metrics.lipschitz import (
    BATCH_SIZE,
    critic_protocol,
    drawn_pairs,
    image_roles,
    jacobian_norms,
    pair_ratios,
    points_of,
    shown,
)
from evaluation.reporting.value import Value
from evaluation.runtime.isolation import still

POINTS = 17  # points on a segment, with both ends
STEPS = 64  # of the Lanczos iteration
ROUNDING = 1e-10  # of float64, relative, below which a direction has nothing new


def largest_on_segments(
    critic: Callable[..., Tensor],
    x: Tensor,
    y: Tensor,
    labels: Tensor | None = None,
    *,
    points: int = POINTS,
    batch_size: int = BATCH_SIZE,
) -> Tensor:
    """Computes the largest norm of the gradient of f over evenly spaced points on each segment, (P,).

    For the arguments see `evaluation.empirical_lipschitz`. The largest of finitely many points is a lower bound of the
    largest norm on the segment.

    Args:
        points: number of points on a segment, at least 2, with both ends.

    Raises:
        EvaluationError: see `evaluation.jacobian_norms`.
    """
    places = torch.linspace(0, 1, points).tolist()
    norms = [jacobian_norms(critic, torch.lerp(x, y, place), labels, batch_size=batch_size) for place in places]
    return torch.stack(norms).amax(0)


def operator_norms(network: nn.Module, image: Tensor) -> dict[str, float]:
    """Computes the norm of every linear and convolution layer as an operator on its input, to 1e-6.

    Biases have no part in it. Parametrized weights are taken as used in eval mode.

    Args:
        image: float (1, ...), an input of the network, from which the layers' input sizes follow.

    Raises:
        EvaluationError: see `evaluation.generalization.spectra.weight_layers`; a layer that the network does not call.
    """
    network, image = copy.deepcopy(network).double(), image.double()
    sizes: dict[str, torch.Size] = {}
    layers = weight_layers(network)
    for name, layer in layers:
        layer.register_forward_pre_hook(partial(_remember, sizes, name))
    with still(network), torch.no_grad():
        network(image)
        if missing := [name for name, _ in layers if name not in sizes]:
            raise EvaluationError(f"critic: got layers that it does not call: {', '.join(missing)}; remove them")
        return {name: _norm(layer, image.new_zeros(sizes[name])) for name, layer in layers}


def _remember(sizes: dict[str, torch.Size], name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Hook that keeps the size of a layer's input."""
    sizes[name] = inputs[0].shape


def _norm(layer: nn.Module, zero: Tensor) -> float:
    """Largest singular value of A: x -> layer(x) - layer(0), x of the size of `zero`, by Lanczos iteration on A^T A."""
    offset = layer(zero)
    vector = torch.randn(zero.shape, generator=torch.Generator().manual_seed(0), dtype=zero.dtype).to(zero.device)
    basis, products = zero.new_empty(0, zero.numel()), zero.new_empty(0, zero.numel())
    for _ in range(min(STEPS, zero.numel())):
        direction = vector.flatten()
        for _ in range(2):  # once is not enough in floating point
            direction = direction - basis.T @ (basis @ direction)
        if (norm := torch.linalg.vector_norm(direction)) <= ROUNDING * torch.linalg.vector_norm(vector):
            break  # the basis spans an invariant subspace
        basis = torch.cat([basis, (direction / norm)[None]])
        with torch.enable_grad():
            point = basis[-1].view_as(zero).requires_grad_()
            y = layer(point) - offset
            (vector,) = torch.autograd.grad(y, point, y.detach())  # A^T A x
        products = torch.cat([products, vector.flatten()[None]])
    return math.sqrt(max(0.0, float(torch.linalg.eigvalsh(basis @ products.T).max())))


class LayerProducts(NamedTuple):
    """Products over the layers of a network.

    matrices: of the spectral norms of weights as matrices (out, everything else).
    operators: of the norms of layers as operators on their inputs.
    """

    matrices: float
    operators: float


def layer_products(network: nn.Module, image: Tensor) -> LayerProducts:
    """Computes the products of all layers' norms; for the arguments and errors see `operator_norms`."""
    matrices = torch.tensor([layer.spectral_norm for layer in layer_spectra(network)], dtype=torch.float64)
    operators = torch.tensor(list(operator_norms(network, image).values()), dtype=torch.float64)
    return LayerProducts(float(matrices.prod()), float(operators.prod()))


def check(context: Context) -> None:
    """Raises EvaluationError for a class-conditional discriminator, or one that is no module."""
    if context.critic_is_conditional:
        raise EvaluationError(
            "metric bounds: got a class-conditional discriminator, expected an unconditional one, whose layers are a "
            "chain; leave the metric out"
        )
    if context.critic is not None and not isinstance(context.critic, nn.Module):
        raise EvaluationError(
            f"metric bounds: got a critic that is a {type(context.critic).__name__}, expected a torch.nn.Module, whose "
            "layers have norms; leave the metric out"
        )


def measure(context: Context) -> list[Value]:
    """Measures the largest ratio of real and generated images, its bound on segments, and the products of layer norms.

    `bounds/obeyed` is the share of pairs whose ratio is at most the largest Jacobian norm on their segment.
    """
    critic = context.critic
    assert isinstance(critic, nn.Module)
    roles, settings = image_roles(context), context.settings
    real, fake = (points_of(context, name, roles[name]) for name in ("real", "fake"))
    rows, _ = drawn_pairs(context, real, fake)
    x, y = shown(context, real, rows[:, 0]), shown(context, fake, rows[:, 1])
    ratios = pair_ratios(critic, x, y, batch_size=settings.batch_size).ratio
    segments = largest_on_segments(critic, x, y, batch_size=settings.batch_size)
    found = ~ratios.isnan()
    ratios, segments = ratios[found], segments[found]
    products = layer_products(critic, to_critic(real.images[:1].to(context.device)))
    values = {
        "ratio": float(ratios.max()) if len(ratios) else torch.nan,
        "segment": float(segments.max()) if len(ratios) else torch.nan,
        "obeyed": float((ratios <= segments).double().mean()),
        **products._asdict(),
    }
    arrays = {"bounds/ratio": ratios.cpu().numpy(), "bounds/segment": segments.cpu().numpy()}
    fields = {**critic_protocol(context), **real.fields, **fake.fields, "points": POINTS}
    return [
        Value(
            key=f"bounds/{name}",
            value=value,
            std=None,
            count=len(ratios),
            better="",
            fields=fields,
            arrays={key: array for key, array in arrays.items() if key == f"bounds/{name}"},
        )
        for name, value in values.items()
    ]
