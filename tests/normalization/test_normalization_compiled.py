"""Tests of normalized networks under torch.compile and DistributedDataParallel."""

import copy
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gan.normalization import (
    NORMALIZATIONS,
    BatchedNormalization,
    normalize,
    normalized_weights,
    spectra,
    spectral_norm,
    update_,
)

WEIGHT_NORMALIZATIONS = [name for name, entry in NORMALIZATIONS.items() if entry.apply]


@pytest.fixture(autouse=True)
def fresh_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clears the compiler's cache and ignores its warnings."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    warnings.simplefilter("ignore")


def network(choice: str, update: str = "step") -> nn.Module:
    """Network with unconverged vectors whose first gradient torch's spectral_norm gets wrong under inductor."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 16))
    if choice == "sn and srn":
        spectral_norm(plain[0], update=update)
        normalize(plain[1:], "srn", c=0.1, update=update)
    else:
        normalize(plain, choice, update=update, **({"c": 0.3} if choice == "srn" else {}))
    for name, buffer in plain.named_buffers():
        if name.endswith(("_u", "_v")):
            buffer.copy_(nn.functional.normalize(torch.randn(buffer.shape), dim=0))
    return plain


def gradients(called: nn.Module, owner: nn.Module, forwards: int, *, move: bool = True) -> list[Tensor]:
    random = torch.Generator().manual_seed(1)
    inputs = torch.randn(forwards, 8, 4, generator=random)
    if move:
        update_(owner)
    loss = sum(called(x).square().sum() for x in inputs)
    return list(torch.autograd.grad(loss, list(owner.parameters())))


def test_gradients_under_inductor_equal_eager() -> None:
    """With update_ outside the compiled region: one forward, and two forwards with one backward, to 1e-5."""
    eager = network("sn and srn")
    assert [row.active for row in spectra(eager)] == [False, True, True]
    twin = copy.deepcopy(eager)
    compiled = torch.compile(twin, fullgraph=True)
    for forwards in (1, 2):
        expected, got = gradients(eager, eager, forwards), gradients(compiled, twin, forwards)
        for one, other in zip(expected, got, strict=True):
            assert float((one - other).norm() / one.norm()) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["sn and srn", *WEIGHT_NORMALIZATIONS])
def test_gradients_of_vectors_that_move_in_the_forward_pass(choice: str) -> None:
    """update="forward" under inductor, unconverged, one and two forwards: gradients to 1e-5, u and v to 1e-6."""
    for forwards in (1, 2):
        torch.compiler.reset()
        eager = network(choice, "forward")
        twin = copy.deepcopy(eager)
        compiled = torch.compile(twin)
        for one, other in zip(
            gradients(eager, eager, forwards, move=False), gradients(compiled, twin, forwards, move=False), strict=True
        ):
            assert float((one - other).norm() / one.norm()) <= 1e-5
        for name, buffer in eager.named_buffers():
            torch.testing.assert_close(twin.get_buffer(name), buffer, rtol=0, atol=1e-6)


@pytest.mark.parametrize("choice", WEIGHT_NORMALIZATIONS)
def test_one_graph_without_breaks(choice: str) -> None:
    """Every normalization traces as one graph with eager gradients; no code is generated."""
    eager = network(choice)
    twin = copy.deepcopy(eager)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for one, other in zip(gradients(eager, eager, 2), gradients(compiled, twin, 2), strict=True):
        assert float((one - other).norm() / one.norm()) <= 1e-5


def test_weights_computed_together_and_a_compiled_network() -> None:
    """The compiled graph takes the batched weights as inputs."""
    eager = network("srn")
    twin = copy.deepcopy(eager)
    compiled = torch.compile(twin, backend="aot_eager")
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    with BatchedNormalization(twin).applied():
        loss = compiled(x).square().sum()
        got = torch.autograd.grad(loss, list(twin.parameters()))
    expected = torch.autograd.grad(eager(x).square().sum(), list(eager.parameters()))
    for one, other in zip(expected, got, strict=True):
        assert float((one - other).norm() / one.norm()) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["sn", "srn", "bsn", "sn and srn"])
def test_weights_computed_together_and_compiled(choice: str) -> None:
    """Three updates under inductor, unconverged, equal eager ones: vectors and weights to 1e-6, gradients to 1e-5."""
    eager = network(choice)
    twin = copy.deepcopy(eager)
    one_by_one, compiled = BatchedNormalization(eager), BatchedNormalization(twin)
    compiled.compile_()
    for _ in range(3):
        one_by_one.update_()
        compiled.update_()
        expected, got = one_by_one.weights(), compiled.weights()
        for name, buffer in eager.named_buffers():
            torch.testing.assert_close(twin.get_buffer(name), buffer, rtol=0, atol=1e-6)
        random = torch.Generator().manual_seed(2)
        upstream = [torch.randn(weight.shape, generator=random) for weight in expected.values()]
        slopes = []
        for weights, owner in ((expected, eager), (got, twin)):
            originals = [found.original for found in normalized_weights(owner)]
            slopes.append(torch.autograd.grad(list(weights.values()), originals, upstream))
        for name, weight in expected.items():
            assert float((got[name] - weight).norm() / weight.norm()) <= 1e-6
        for one, other in zip(*slopes, strict=True):
            assert float((one - other).norm() / one.norm()) <= 1e-5


DISTRIBUTED = """
    import os, sys, torch
    from torch import nn
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    from gan.normalization import normalize, update_

    rank, store = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for choice, broadcast in (("sn", True), ("srn", False), ("bssn", True), ("sn_conv", True)):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
        normalize(network, choice, example=(torch.zeros(1, 3, 8, 8),))
        parallel = DistributedDataParallel(network, broadcast_buffers=broadcast)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        random = torch.Generator().manual_seed(rank)
        for _ in range(3):
            update_(network)
            x = torch.randn(2, 3, 8, 8, generator=random)
            loss = parallel(x).square().mean() - parallel(-x).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        mine = torch.cat([value.flatten() for value in network.state_dict().values()])
        both = [torch.empty_like(mine) for _ in range(2)]
        dist.all_gather(both, mine)
        assert torch.equal(*both), choice
        assert torch.isfinite(mine).all()
    dist.barrier()
    os._exit(0)  # at the interpreter's exit a thread of gloo ends the process by SIGABRT at times
"""


def test_two_processes_stay_equal(tmp_path: Path) -> None:
    """DistributedDataParallel over gloo: two forwards, one backward, buffers broadcast or not; three steps."""
    store = tmp_path / "store"
    command = [sys.executable, "-c", textwrap.dedent(DISTRIBUTED)]
    processes = [
        subprocess.Popen([*command, str(rank), str(store)], stderr=subprocess.PIPE, text=True) for rank in (0, 1)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
