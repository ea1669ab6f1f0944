"""Gradients of the discriminator during training, which Lin et al. 2021 analyse.

A measurement is one more forward and two backward passes of the discriminator, in float32 and outside autocast. It
changes nothing: networks, singular vectors, stored gradients and random states are as before.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gan.errors import DivergenceError
from gan.normalization import UsedWeight, used_weights
from gan.training.arithmetic import float32_products
from gan.training.iteration import Iteration
from gan.training.state import undone


class LayerGradient(NamedTuple):
    """Gradient of the discriminator's loss L in a weight, and the weight's variance.

    gradient: norm of dL/dW of the stored weight, which the optimizer changes.
    gradient_used: norm of dL/dW of the weight that the network uses; the same if the layer is not normalized.
    variance: of the entries of the weight that the network uses.
    """

    gradient: float
    gradient_used: float
    variance: float


class Gradients(NamedTuple):
    """Gradients of the discriminator at one step, on one batch of real and one of generated images.

    layers: by layer, in the order of `gan.normalization.spectra`.
    whole: norm of the gradients of all stored weights together.
    slope_real, slope_fake: mean, minimum and maximum over the images x, in [-1, 1], of the norm of the gradient of
        D(x) in x.
    saturated_real, saturated_fake: shares of the images that add no gradient to the loss, see `gan.losses.Loss.margin`;
        None if the loss has no margin.
    """

    layers: Mapping[str, LayerGradient]
    whole: float
    slope_real: tuple[float, float, float]
    slope_fake: tuple[float, float, float]
    saturated_real: float | None
    saturated_fake: float | None

    def record(self) -> dict[str, Any]:
        """Returns nested dictionaries of the numbers that are not None, for metrics.jsonl."""
        layers = {name: layer._asdict() for name, layer in self.layers.items()}
        return {name: value for name, value in (self._asdict() | {"layers": layers}).items() if value is not None}


def measure_gradients(iteration: Iteration) -> Gradients:
    """Measures the gradients of the discriminator at the present step; waits for the device.

    The real images and the latents are those of the next discriminator update, see `Iteration.draw_discriminator`; the
    loss has its penalty.
    Several processes average their gradients, as in training, and join the slopes and logits of their images.

    Raises:
        DivergenceError: a gradient or slope is not finite.
    """
    state, mean, joined = iteration.state, iteration.processes.mean, iteration.processes.joined
    changed = [buffer for network in (state.generator, state.discriminator) for buffer in network.buffers()]
    changed += [] if state.logit_averages is None else [state.logit_averages]
    random = torch.random.fork_rng([iteration.device] if iteration.device.type == "cuda" else [])
    with undone(changed), random:
        iteration.generator.train()
        state.discriminator.train()
        inputs = iteration.draw_discriminator(state.step * iteration.settings.d_steps)
        with iteration.arithmetic.float32_products():
            (fake,) = iteration.generate([inputs.fakes])
        with float32_products("fp32"), used_weights(state.discriminator) as weights:
            both, labels = iteration.with_real(inputs, fake)
            logits = state.discriminator(both.requires_grad_(), labels)
            (slopes,) = torch.autograd.grad(logits.sum(), both, retain_graph=True)
            loss = iteration.discriminator_loss(logits, both, labels, inputs.penalty)
            tensors = [*(weight.stored for weight in weights), *(weight.used for weight in weights)]
            gradients = torch.autograd.grad(loss, tensors, materialize_grads=True)
    norms = torch.stack([mean(gradient).norm() for gradient in gradients]).view(2, -1)
    variances = torch.stack([weight.used.detach().var(correction=0) for weight in weights])
    table = torch.stack([*norms, variances], 1)  # (layers, 3)
    real, fake = (joined(part) for part in slopes.flatten(1).norm(dim=1).chunk(2))
    real_logits, fake_logits = (joined(part) for part in logits.detach().chunk(2))
    margin = iteration.loss.margin
    found = Gradients(
        layers={weight.name: LayerGradient(*row) for weight, row in zip(weights, table.tolist(), strict=True)},
        whole=_together(weights, norms[0]),
        slope_real=_summary(real),
        slope_fake=_summary(fake),
        saturated_real=None if margin is None else float((real_logits >= margin).double().mean()),
        saturated_fake=None if margin is None else float((fake_logits <= -margin).double().mean()),
    )
    _check(found, state.step)
    return found


def _together(weights: list[UsedWeight], norms: Tensor) -> float:
    """Norm of the gradients of several stored weights together; a parameter of several layers counts once."""
    distinct = {id(weight.stored): norm for weight, norm in zip(weights, norms.tolist(), strict=True)}
    return math.hypot(*distinct.values())


def _summary(values: Tensor) -> tuple[float, float, float]:
    mean, least, most = torch.stack([values.mean(), values.min(), values.max()]).tolist()
    return mean, least, most


def _check(found: Gradients, step: int) -> None:
    """Raises DivergenceError if a gradient or slope is not finite; the message names the layers."""
    values = {f"the gradient of {name}": sum(layer) for name, layer in found.layers.items()}
    values["the gradient of D(x) in x"] = sum(found.slope_real) + sum(found.slope_fake)
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        raise DivergenceError(f"step {step}: {' and '.join(broken)} not finite", since=step)


__all__ = ["Gradients", "LayerGradient", "measure_gradients"]
