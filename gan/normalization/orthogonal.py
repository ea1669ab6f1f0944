"""Orthonormal regularization, the "Orthonormal" baseline of Miyato et al. 2018 after Brock et al. 2016."""

import torch
from torch import Tensor, nn

from gan.normalization.layers import layers, output_dim
from gan.normalization.power_iteration import as_matrix


def orthogonal_penalty(network: nn.Module, *, coefficient: float = 1.0) -> Tensor:
    """Returns coefficient * sum over layers of |W W^T - I|_F^2, or |W^T W - I|_F^2 if that matrix is smaller.

    W is a linear, convolution or embedding weight as the network uses it, after any normalization, read as
    (out, everything else). Both forms have the gradient 4 (W W^T - I) W and differ by the constant |rows - columns|.
    The penalty pulls all singular values to 1 and thus the stable rank to min(rows, columns), the opposite of stable
    rank normalization.

    Args:
        coefficient: neither Miyato et al. 2018 nor the SRN paper states it. Sweep it, for instance over 1e-4, 1e-3,
            ..., 1, and report it. Brock et al.'s code has 1e-3 for sums of absolute values. BigGAN's 1e-4 omits the
            diagonal and adds half the gradient, so it corresponds to 0.5e-4 here.

    Returns:
        A scalar, float32 or wider, differentiable in the network's weights.

    Raises:
        ValueError: the network has no such layer.
    """
    terms = [_distance_from_orthonormal(as_matrix(module.weight, output_dim(module))) for _, module in layers(network)]  # type: ignore[arg-type]
    if not terms:
        raise ValueError(f"{type(network).__name__} has no linear, convolution or embedding layer to penalize")
    return coefficient * torch.stack(terms).sum()


def _distance_from_orthonormal(matrix: Tensor) -> Tensor:
    with torch.autocast(matrix.device.type, enabled=False):
        matrix = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
        gram = matrix @ matrix.t() if matrix.shape[0] <= matrix.shape[1] else matrix.t() @ matrix
        return (gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)).square().sum()
