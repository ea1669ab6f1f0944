"""Spectral normalization with a learned scale: baselines of Lin, Sekar, Fanti 2021."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gan.normalization.power_iteration import EPS
from gan.normalization.spectral import SpectralNorm, StackFormula


class LearnedScaleNorm(SpectralNorm):
    """Reparametrizes W to spectral norm |gamma|: W -> gamma * W / sigma, with a trained number gamma that starts at 1.

    As coded by Lin et al. 2021 (their folders same_gamma-CNN and diff_gamma-CNN): sigma is that of `SpectralNorm`, the
    layer's bias is multiplied by gamma, too, see `ScaledBias`, and gamma is trained like any weight, without a
    constraint on its sign. They train with the Wasserstein loss and a gradient penalty of coefficient 10, since nothing
    else bounds gamma.

    Arguments and errors: see `SpectralNorm`.
    """

    gamma: nn.Parameter

    def __init__(
        self,
        weight: Tensor,
        *,
        dim: int = 0,
        n_power_iterations: int = 1,
        eps: float = EPS,
        update: str = "forward",
    ) -> None:
        super().__init__(weight, dim=dim, n_power_iterations=n_power_iterations, eps=eps, update=update)
        self.gamma = nn.Parameter(self._u.new_ones(()))

    def normalized(self, weight: Tensor) -> Tensor:
        """Normalizes W, given in the type of u and v, by the current u and v."""
        return super().normalized(weight) * self.gamma

    @classmethod
    def stacked(cls, norms: Sequence[SpectralNorm]) -> StackFormula:
        """Returns the formula for several weights at once; see `SpectralNorm.stacked`."""
        divide = super().stacked(norms)

        def scale(matrices: Tensor, sigmas: Sequence[Tensor], u: Tensor, v: Tensor) -> Tensor:
            gammas = torch.stack([norm.gamma for norm in norms if isinstance(norm, LearnedScaleNorm)])
            return divide(matrices, sigmas, u, v) * gammas[:, None, None]

        return scale


class ScaledBias(nn.Module):
    """Reparametrizes the bias of a layer: b -> gamma * b, with the gamma of the layer's weight."""

    def __init__(self, gamma: nn.Parameter, followers: tuple[str, ...]) -> None:
        super().__init__()
        self.gamma = gamma
        self.followers = followers  # see `SpectralNorm`

    def forward(self, bias: Tensor) -> Tensor:
        return bias * self.gamma

    def right_inverse(self, bias: Tensor) -> Tensor:
        """Stores a value assigned to the parametrized bias as the bias before scaling."""
        return bias
