"""Tests of docs/normalizations.md: its example and its statements about convolutions."""

import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gan.normalization import NORMALIZATIONS, LayerSpectrum, SpectralNorm, spectra

PAGE = Path(__file__).resolve().parents[2] / "docs" / "normalizations.md"


def test_the_example_on_a_residual_network_runs() -> None:
    """In torchvision's ResNet-18 every layer is normalized; the plain copy has no parametrizations and is equal."""
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    names: dict[str, object] = {}
    torch.manual_seed(0)
    exec(code[1], names)
    network, plain = names["network"], names["plain"]
    assert isinstance(network, torch.nn.Module)
    assert isinstance(plain, torch.nn.Module)
    norms = [module for module in network.modules() if isinstance(module, SpectralNorm)]
    assert len(norms) == 21, "20 convolutions and the classifier"
    assert not any("parametrizations" in key for key in plain.state_dict())
    rows: list[LayerSpectrum] = spectra(plain)
    assert all(row.sigma == pytest.approx(1, abs=1e-5) for row in rows)


def test_every_name_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in text for name in NORMALIZATIONS)


def operator_norm(kernel: Tensor, size: int, iterations: int = 100) -> float:
    """Norm of the zero-padded convolution on images of side `size`, by power iteration on its normal operator."""
    x = torch.randn(1, kernel.shape[1], size, size, generator=torch.Generator().manual_seed(0), dtype=kernel.dtype)
    for _ in range(iterations):
        y = F.conv2d(x / x.norm(), kernel, padding=kernel.shape[2] // 2)
        x = F.conv_transpose2d(y, kernel, padding=kernel.shape[2] // 2)
    return float(y.norm())


@pytest.mark.parametrize(
    ("channels", "ratio"),
    [((3, 128), "2.4"), ((128, 256), "1.6"), ((64, 64), "1.5"), ((256, 128), "1.4"), ((64, 3), "1.2")],
)
def test_the_ratios_on_the_page(channels: tuple[int, int], ratio: str) -> None:
    """Operator norm over sigma of Gaussian 3x3 kernels, 16x16 inputs; equal up to 3 % for other kernels."""
    into, out = channels
    kernel = torch.randn(out, into, 3, 3, generator=torch.Generator().manual_seed(0))
    found = operator_norm(kernel, 16, iterations=30) / float(torch.linalg.matrix_norm(kernel.flatten(1), 2))
    assert found == pytest.approx(float(ratio), abs=0.06)
    assert re.search(rf"\b{ratio}\s", PAGE.read_text(encoding="utf-8").partition("depends on the channels")[2][:200])


@pytest.mark.parametrize(("side", "low", "high"), [(1, 0.99, 1.0 + 1e-9), (3, 1.3, 1.7)])
def test_the_operators_norm_exceeds_the_reshaped_weights(side: int, low: float, high: float) -> None:
    """Gaussian kernels on 16x16 inputs; smooth ones come nearer to the bound sqrt(kh * kw)."""
    random = torch.Generator().manual_seed(0)
    kernel = torch.randn(16, 16, side, side, generator=random, dtype=torch.float64)
    sigma = float(torch.linalg.matrix_norm(kernel.flatten(1), 2))
    assert low <= operator_norm(kernel, 16) / sigma <= high
    smooth = torch.randn(16, 16, 1, 1, generator=random, dtype=torch.float64).expand(16, 16, side, side)
    sigma = float(torch.linalg.matrix_norm(smooth.flatten(1), 2))
    ratio = operator_norm(smooth, 16) / sigma
    assert (2.2 if side == 3 else 0.99) <= ratio <= math.sqrt(side * side) + 1e-9
