"""Tests of stable rank normalization relative to the stable rank of the initial weight."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gan.models import ResNetDiscriminator
from gan.normalization import (
    BatchedNormalization,
    bake,
    normalize,
    refresh_,
    spectra,
    stable_rank,
    stable_rank_norm,
    stable_rank_projection,
    update_,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "normalizations.md"
CS = (0.9, 0.7, 0.5, 0.3, 0.1)
"""c of SRN-90 to SRN-10."""


def discriminator(c: float, relative_to: str, seed: int = 0, channels: int = 8, choice: str = "srn") -> nn.Module:
    torch.manual_seed(seed)
    network, example = ResNetDiscriminator(channels=channels).double(), torch.zeros(1, 3, 32, 32, dtype=torch.float64)
    return normalize(network, choice, c=c, relative_to=relative_to, example=(example,))


def targets(network: nn.Module) -> list[float | None]:
    return [row.target_rank for row in spectra(network)]


@pytest.mark.parametrize("c", [0.3, 0.9])
@pytest.mark.parametrize("update", ["step", "forward"])
def test_each_layer_keeps_a_share_of_its_own_stable_rank(c: float, update: str) -> None:
    """At first it is Algorithm 1 with r = c * stable rank; W changes later, and r does not."""
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(12, 20, 3).double()
    weight = layer.weight.detach().transpose(0, 1)
    rank = c * float(stable_rank(weight))
    stable_rank_norm(layer, c=c, relative_to="initial", update=update)
    refresh_(layer)
    (row,) = spectra(layer)
    assert (row.active, row.policy, row.target_rank) == (True, "bound", pytest.approx(rank, rel=1e-12))
    exact = stable_rank_projection(weight / torch.linalg.matrix_norm(weight.flatten(1), 2), rank)
    torch.testing.assert_close(bake(layer).weight.transpose(0, 1), exact.weight, rtol=0, atol=1e-12)
    original = layer.parametrizations.weight.original.detach()
    original[:, 1:] *= 0.01
    refresh_(layer)
    (after,) = spectra(layer)
    assert (after.active, after.target_rank) == (False, row.target_rank)
    assert after.normalized_stable_rank == pytest.approx(float(stable_rank(original.transpose(0, 1))))


def test_only_this_choice_adds_a_buffer() -> None:
    of_size, of_initial = ({*discriminator(0.5, choice).state_dict()} for choice in ("size", "initial"))
    assert of_size < of_initial
    added = of_initial - of_size
    assert len(added) == 11
    assert all(key.endswith(".parametrizations.weight.0._initial_rank") for key in added)


@pytest.mark.parametrize("choice", ["srn", "srn_conv"])
def test_a_checkpoint_brings_its_bounds_to_existing_stacks_too(choice: str) -> None:
    trained, loaded = (discriminator(0.3, "initial", seed, choice=choice) for seed in (0, 1))
    batched = BatchedNormalization(loaded)
    assert targets(loaded) != targets(trained)
    loaded.load_state_dict(trained.state_dict())
    assert targets(loaded) == targets(trained)
    batched.update_()
    update_(trained)
    for name, weight in batched.weights().items():
        expected: Tensor = trained.get_submodule(name.removesuffix(".weight")).weight  # type: ignore[assignment]
        torch.testing.assert_close(weight, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("policy", "c", "weight", "target", "recorded"),
    [
        ("skip", 0.3, torch.eye(3, 8), None, "skip"),
        ("floor", 0.3, torch.eye(3, 8), 1.5, "floor"),
        ("floor", 0.3, torch.ones(1, 8), None, "skip"),
        ("error", 0.5, torch.eye(3, 8), 1.5, "bound"),
        ("error", 1.0, torch.ones(1, 8), 1.0, "bound"),  # the stable rank of one row is always 1
        ("skip", 1.0, torch.ones(3, 8), None, "skip"),
    ],
)
def test_policies_where_r_is_at_most_one(
    policy: str, c: float, weight: Tensor, target: float | None, recorded: str
) -> None:
    """Orthonormal rows have a stable rank of 3, others of 1."""
    layer = nn.Linear(8, len(weight)).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
    stable_rank_norm(layer, c=c, relative_to="initial", infeasible=policy)
    (row,) = spectra(layer)
    assert (row.target_rank, row.policy) == (pytest.approx(target) if target else None, recorded)
    assert torch.isfinite(layer.weight).all()


@pytest.mark.parametrize(
    ("weight", "advice"),
    [
        (torch.eye(3, 8), r"c \* initial stable rank = 0.3 \* 3 is .* use c above 0.334, or infeasible"),
        (torch.ones(1, 8), r"0.3 \* 1 is .* use c=1, or infeasible"),
        (torch.ones(3, 8), r"0.3 \* 1 is .* gradient: use infeasible"),
    ],
)
def test_the_error_policy_gives_advice_that_works(weight: Tensor, advice: str) -> None:
    layer = nn.Linear(8, len(weight)).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
    with pytest.raises(ValueError, match=advice):
        stable_rank_norm(layer, c=0.3, relative_to="initial", infeasible="error")
    if "use c" in advice:
        stable_rank_norm(layer, c=0.3341 if "above" in advice else 1, relative_to="initial", infeasible="error")
    with pytest.raises(ValueError, match="relative_to: got 'rank', expected one of size, initial"):
        stable_rank_norm(nn.Linear(8, 8), relative_to="rank")


def test_the_table_of_bound_layers_on_the_page() -> None:
    """Layers of the 32x32 discriminator (128 channels) whose stable rank each choice lowers at initialization."""
    text = PAGE.read_text(encoding="utf-8")
    for choice in ("size", "initial"):
        rows = [spectra(discriminator(c, choice, channels=128)) for c in CS]
        counts = [f"{sum(row.active for row in found)}" for found in rows]
        assert f"| `{choice}` | {' | '.join(counts)} |" in text
    (conv,) = (row for row in rows[1] if row.name == "blocks.2.conv2")
    assert conv.target_rank == pytest.approx(52, abs=0.5), "0.7 * 74; relative to size it is 0.7 * 128 = 89.6"


def test_the_table_of_a_run_with_spectral_normalization_on_the_page() -> None:
    """Counts the layers of the SN run whose stable rank is above each bound; the SRN run's targets tell the sides."""
    folder, text = PAGE.parent / "results" / "cifar10_unconditional-jpeg", PAGE.read_text(encoding="utf-8")
    records = {}
    for run in ("sn", "srn50"):
        with gzip.open(folder / run / "metrics.jsonl.gz", "rt") as file:
            lines = [json.loads(line) for line in file]
        records[run] = {line["step"]: line["layers"] for line in lines if "layers" in line}
    sides = {layer["name"]: layer["target_rank"] / 0.5 for layer in records["srn50"][0] if layer["target_rank"]}
    initial = {layer["name"]: layer["stable_rank"] for layer in records["sn"][0]}
    for choice, whole in (("size", sides), ("initial", initial)):
        for step in (0, 2500, 20000):
            rows = [row for row in records["sn"][step] if row["name"] in sides]
            counts = [f"{sum(row['stable_rank'] > c * whole[row['name']] for row in rows)}" for c in CS]
            assert f"| `{choice}`, {step:,} | {' | '.join(counts)} |" in text
