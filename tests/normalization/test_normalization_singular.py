"""Tests of exact singular pairs of wide layers, against float64 SVDs and known spectra."""

import pytest
import torch
from torch import Tensor, nn

from gan.normalization import bake, normalize, refresh_, singular, spectra, spectral_norm, update_

SIDE = 600
PLACES = torch.arange(SIDE, dtype=torch.float64) / SIDE
FIRST = PLACES * SIDE
SPECTRA: dict[str, Tensor] = {
    "even": 1 - PLACES,
    "dense": 1 - 1e-3 * PLACES,
    "almost equal": 1 - 1e-5 * PLACES,
    "equal": torch.ones(SIDE),
    "two equal": torch.where(FIRST < 2, 1.0, 0.99 - PLACES / 2),
    "a hundred equal": torch.where(FIRST < 100, 1.0, 0.99 - PLACES / 2),
    "two apart by 1e-9": torch.where(FIRST < 2, 1 - 1e-9 * FIRST, 0.9 - PLACES / 2),
    "twenty within 1e-4": torch.where(FIRST < 20, 1 - 5e-6 * FIRST, 0.95 - PLACES / 2),
    "one just above": torch.where(FIRST < 1, 1 + 2e-6, 1 - 1e-2 * PLACES),
    "fast": 1 / (1 + FIRST),
    "rank one": torch.where(FIRST < 1, 1.0, 0.0),
    "rank three, equal": torch.where(FIRST < 3, 1.0, 0.0),
}


def with_spectrum(values: Tensor, scale: float = 1.0) -> Tensor:
    """Square matrix with these singular values, by reflections of a diagonal one."""
    matrix = scale * torch.diag(values.double())
    for seed in range(6):
        x = torch.randn(len(values), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        x /= x.norm()
        matrix = matrix - 2 * (torch.outer(x, x @ matrix) if seed % 2 else torch.outer(matrix @ x, x))
    return matrix


def layer_of(matrix: Tensor) -> nn.Linear:
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, dtype=matrix.dtype)
    with torch.no_grad():
        layer.weight.copy_(matrix)
    return layer


@pytest.mark.parametrize("case", SPECTRA)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_largest_singular_value_whatever_the_gap(case: str, dtype: torch.dtype) -> None:
    """Relative error 1e-6, in refresh_, bake and, for sides above 1024, spectra; equal at every call."""
    for scale in (1.0, 1e-9, 1e12):
        matrix = with_spectrum(SPECTRA[case], scale).to(dtype)
        expected = scale * float(SPECTRA[case].max())
        layer = spectral_norm(layer_of(matrix), update="step")
        refresh_(layer)
        norm = layer.parametrizations.weight[0]
        u, v = norm._u.double(), norm._v.double()
        assert float(u @ matrix.double() @ v) == pytest.approx(expected, rel=1e-6)
        assert [float(u.norm()), float(v.norm())] == pytest.approx([1, 1], abs=1e-6)
        again = [norm._u.clone(), norm._v.clone()]
        refresh_(layer)
        assert torch.equal(norm._u, again[0])
        assert torch.equal(norm._v, again[1])


@pytest.mark.parametrize("shape", [(300, 2000), (2000, 300), (1, 2**21), (2**21, 2), (64, 128, 12, 12)])
@pytest.mark.parametrize("choice", ["srn", "bsn"])
def test_every_shape(choice: str, shape: tuple[int, ...]) -> None:
    """Wide, tall, thin and long weights, contiguous and channels-last, agree with eigenvalues of the Gram matrix."""
    torch.manual_seed(0)
    conv = len(shape) == 4
    layer = nn.Conv2d(shape[1], shape[0], shape[2:]) if conv else nn.Linear(shape[1], shape[0])
    if conv:
        layer.to(memory_format=torch.channels_last)
    original = layer.weight.detach().double()
    normalize(layer, choice, **({"c": 1.0} if choice == "srn" else {}))
    refresh_(layer)
    norm = layer.parametrizations.weight[0]
    readings = [original.flatten(1), original.transpose(0, 1).flatten(1)] if conv else [original]
    for (_, u, v), matrix in zip(norm.pairs(), readings, strict=False):
        gram = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
        expected = float(torch.linalg.eigvalsh(gram)[-1].sqrt())
        assert float(u.double() @ matrix @ v.double()) == pytest.approx(expected, rel=1e-6)


def test_small_layers_keep_the_svd_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to 256 by 4096, so values of published settings' layers do not change."""
    monkeypatch.setattr(singular, "_by_lanczos", None)
    for shape in ((256, 4096), (128, 1152), (3, 2)):
        refresh_(spectral_norm(nn.Linear(*shape)))


def test_large_layers_take_no_svd_and_no_gram_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """bake, refresh_ and spectra of a 1100 x 1300 layer agree with the SVD."""
    torch.manual_seed(0)
    layer = nn.Linear(1300, 1100)
    values = torch.linalg.svdvals(layer.weight.detach().double())
    normalize(layer, "srn", c=0.1)
    for name in ("svd", "svdvals", "eigvalsh"):
        monkeypatch.setattr(torch.linalg, name, None)
    update_(layer)
    baked = bake(layer)
    (row,), (plain,) = spectra(layer), spectra(baked)
    assert row.sigma == pytest.approx(float(values[0]), rel=1e-6)
    assert row.stable_rank == pytest.approx(float((values / values[0]).square().sum()), rel=1e-5)
    assert (plain.sigma, plain.stable_rank) == pytest.approx((1, 110), rel=1e-5)


def test_under_autocast_the_pair_is_as_exact() -> None:
    matrix = with_spectrum(SPECTRA["even"]).float()
    layer = spectral_norm(layer_of(matrix), update="step")
    with torch.autocast("cpu", torch.bfloat16):
        refresh_(layer)
    norm = layer.parametrizations.weight[0]
    assert float(norm._u.double() @ matrix.double() @ norm._v.double()) == pytest.approx(1, rel=1e-6)
