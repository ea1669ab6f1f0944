"""Tests of which weights `normalize` reaches: attention, recurrent, tied and zero weights, excluded layers."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from gan.normalization import (
    NORMALIZATIONS,
    BatchedNormalization,
    bake,
    normalize,
    normalized_weights,
    refresh_,
    spectra,
    spectral_norm,
    update_,
)

WEIGHT_NORMALIZATIONS = [name for name, entry in NORMALIZATIONS.items() if entry.apply]


class Own(nn.Module):
    """Module with parameters of its own: a matrix, a vector, a complex matrix, whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(2, 3))
        self.gain = nn.Parameter(torch.ones(3))
        self.waves = nn.Parameter(torch.randn(2, 3, dtype=torch.complex64))
        self.table = nn.Parameter(torch.ones(2, 2, dtype=torch.int64), requires_grad=False)


class Adapted(nn.Linear):
    """Linear layer with a second matrix."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.down = nn.Parameter(torch.randn(2, 4))


LEFT: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "attention": (lambda: nn.MultiheadAttention(4, 2), ["1.in_proj_weight"]),
    "attention of three sizes": (
        lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5, add_bias_kv=True),
        ["1.q_proj_weight", "1.k_proj_weight", "1.v_proj_weight", "1.bias_k", "1.bias_v"],
    ),
    "lstm": (lambda: nn.LSTM(4, 4), ["1.weight_ih_l0", "1.weight_hh_l0"]),
    "gru": (lambda: nn.GRU(4, 4), ["1.weight_ih_l0", "1.weight_hh_l0"]),
    "cell": (lambda: nn.RNNCell(4, 4), ["1.weight_ih", "1.weight_hh"]),
    "bilinear": (lambda: nn.Bilinear(3, 4, 5), ["1.weight"]),
    "bag": (lambda: nn.EmbeddingBag(5, 4), ["1.weight"]),
    "own": (Own, ["1.token", "1.waves"]),
    "inside a layer": (Adapted, ["1.down"]),
    "list": (lambda: nn.ParameterList([torch.randn(2, 2)]), ["1.0"]),
    "zero": (lambda: filled(nn.Linear(4, 4), 0), ["1"]),
    "vectors": (
        lambda: nn.Sequential(
            nn.BatchNorm2d(4), nn.LayerNorm((2, 3)), nn.RMSNorm((2, 3)), nn.GroupNorm(2, 4), nn.PReLU(4)
        ),
        [],
    ),
    "lazy vectors": (nn.LazyBatchNorm1d, []),
}


def filled(layer: nn.Module, value: float) -> nn.Module:
    nn.init.constant_(layer.weight, value)  # type: ignore[arg-type]
    return layer


def said(act: Callable[[], object]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        act()
    return [str(one.message) for one in caught]


@pytest.mark.parametrize("case", LEFT)
@pytest.mark.parametrize("choice", WEIGHT_NORMALIZATIONS)
def test_what_is_left_is_listed_in_one_warning_and_in_spectra(choice: str, case: str) -> None:
    """Each name is accepted by exclude, and the warning is then not given."""
    make, names = LEFT[case]
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 4), make())
    twin = nn.Sequential(nn.Linear(4, 4), make())
    messages = said(lambda: normalize(network, choice))
    assert len(messages) == bool(names)
    assert all(f" {name} (" in messages[0] for name in names)
    rows = {row.name: row for row in spectra(network)}
    assert all(rows[name].sigma == rows[name].normalized_sigma for name in names)
    reached = {found.name for found in normalized_weights(network)}
    assert rows.keys() == reached | set(names), "nothing is left out of both"
    assert said(lambda: normalize(twin, choice, exclude=names)) == []
    assert {found.name for found in normalized_weights(twin)} == reached
    assert said(lambda: normalize(nn.Sequential(nn.Linear(4, 4), make()), "none")) == []


@pytest.mark.parametrize("case", [case for case in LEFT if case not in ("zero", "vectors", "lazy vectors")])
def test_what_is_left_can_be_normalized_by_hand_as_the_warning_says(case: str) -> None:
    """Then there is no warning, and the network can be copied and baked."""
    make, names = LEFT[case]
    network = nn.Sequential(nn.Linear(4, 4), make())
    complex_one = [name for name in names if name == "1.waves"]
    for name in names:
        if name not in complex_one:
            spectral_norm(network[1], name.rpartition(".")[2])
    assert said(lambda: normalize(network, "sn", exclude=complex_one)) == []
    rows = {row.name: row for row in spectra(bake(network))}
    assert all(rows[name].sigma == pytest.approx(1, abs=1e-5) for name in names if name not in complex_one)


def test_a_recurrent_layer_trains_normalized_and_is_baked() -> None:
    """nn.LSTM keeps a list of its weights; the list has the normalized ones, before and after baking."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.LSTM(4, 4))
    for name in ("weight_ih_l0", "weight_hh_l0"):
        spectral_norm(network[0], name)
    optimizer, x = torch.optim.Adam(network.parameters(), 0.1), torch.randn(5, 2, 4)
    for _ in range(20):
        network(x)[0].square().sum().backward()
        optimizer.step()
    baked = bake(network)
    refresh_(network)
    torch.testing.assert_close(baked(x)[0], network.eval()(x)[0])
    assert float(torch.linalg.matrix_norm(baked[0].weight_hh_l0.detach(), 2)) == pytest.approx(1, abs=1e-5)


def test_attention_computes_with_the_normalized_weights() -> None:
    """The fast path of evaluation, which reads weights directly, gives the output of plain normalized weights."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0)
    spectral_norm(layer.self_attn, "in_proj_weight")
    normalize(layer, "sn")
    refresh_(layer)
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        outputs = [layer.eval()(x), bake(layer)(x), bake(layer).train()(x)]
    torch.testing.assert_close(outputs[1], outputs[0])
    torch.testing.assert_close(outputs[2], outputs[0])


class Nested(nn.Module):
    """Network with named parts."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"attn": nn.MultiheadAttention(4, 2), "mlp": nn.Linear(4, 4)}) for _ in range(2)
        )
        self.head = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))


EXCLUDED = {
    ("head", "blocks.*.attn"): {"blocks.0.mlp", "blocks.1.mlp"},
    ("head.1", "*.attn"): {"blocks.0.mlp", "blocks.1.mlp", "head.0"},
    ("blocks.[01].*", "head.0.weight"): {"head.1"},
    "blocks*": {"head.0", "head.1"},
    ("*.in_proj_weight", "head"): {f"blocks.{i}.{part}" for i in (0, 1) for part in ("attn.out_proj", "mlp")},
}


@pytest.mark.parametrize("patterns", EXCLUDED)
def test_names_and_patterns_leave_layers_out(patterns: str | tuple[str, ...]) -> None:
    """A module's name stands for everything inside; excluded weights keep their values and are in spectra."""
    network = Nested()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert said(lambda: normalize(network, "srn", exclude=patterns)) == []
    assert {found.name for found in normalized_weights(network)} == EXCLUDED[patterns]
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items() if name in after)
    assert len(spectra(network)) == len(spectra(Nested()))


@pytest.mark.parametrize("choice", ["sn", "none"])
def test_a_pattern_that_matches_nothing_lists_the_names(choice: str) -> None:
    network = Nested()
    with pytest.raises(
        ValueError, match=r"exclude: 'haed' matches no weight, expected some of blocks.0.*head.0, head.1"
    ):
        normalize(network, choice, exclude=("head", "haed"))
    assert not any("parametrizations" in name for name in network.state_dict())
    deep = nn.Sequential(*(nn.Linear(1, 1) for _ in range(100)))
    with pytest.raises(ValueError, match=r"of 0, 1, 2,.* 29 and 70 more$"):
        normalize(deep, choice, exclude="head")
    with pytest.raises(ValueError, match="matches no weight"):
        normalize(nn.Linear(2, 2), choice, exclude="head")


def test_lazy_layers_are_refused_unless_excluded() -> None:
    with pytest.raises(ValueError, match=r"^1: a lazy weight .* initialise the network first"):
        normalize(nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(4)), "sn")
    network = normalize(nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(4)), "sn", exclude="1")
    with pytest.raises(ValueError, match=r"^1: a lazy weight .* initialise the network first"):
        spectra(network)
    network(torch.ones(1, 4))
    assert [row.name for row in spectra(network)] == ["0", "1"]


class Tied(nn.Module):
    """Embedding and last layer with one weight, a transposed convolution with that of a convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.down, self.up = nn.Conv2d(4, 6, 3), nn.ConvTranspose2d(6, 4, 3)
        self.head.weight = self.embedding.weight
        self.up.weight = self.down.weight

    def forward(self, images: Tensor) -> Tensor:
        return self.up(self.down(images))

    def weights(self) -> list[Tensor]:
        return [layer.weight.detach() for layer in (self.embedding, self.head, self.down, self.up)]


TIED_EXAMPLE = (torch.zeros(1, 4, 6, 6),)


@pytest.mark.parametrize("choice", WEIGHT_NORMALIZATIONS)
def test_tied_weights_are_normalized_in_each_layer_and_stay_tied(choice: str) -> None:
    """One parameter, equal weights bit for bit after updates, exact weights after baking, and still one parameter.

    The transposed convolution reads its weight as another matrix, so after baking it has a parameter of its own.
    """
    settings: dict[str, Any] = {
        "srn": {"c": 0.4},
        "srn_conv": {"c": 0.4},
        "ssn": {"scale": 1.5},
        "bssn": {"scale": 1.5},
    }.get(choice, {})
    network = Tied()
    count = len(list(network.parameters()))
    assert said(lambda: normalize(network, choice, example=TIED_EXAMPLE, **settings)) == []
    assert len([name for name, _ in network.named_parameters() if not name.endswith("gamma")]) == count
    scales = [getattr(layer.parametrizations.weight[0], "gamma", None) for layer in (network.embedding, network.head)]
    assert scales[0] is scales[1]
    for update in (lambda: update_(network), BatchedNormalization(network).update_, lambda: refresh_(network)):
        with torch.no_grad():
            network.embedding.parametrizations.weight.original.add_(torch.randn(7, 4))
        update()
        assert torch.equal(network.embedding.weight, network.head.weight)
    baked = bake(network)
    for plain, expected in zip(baked.weights(), network.weights(), strict=True):
        torch.testing.assert_close(plain, expected, rtol=0, atol=1e-6)
    assert baked.head.weight is baked.embedding.weight
    if choice in ("sn", "srn", "ssn"):
        assert baked.up.weight is not baked.down.weight


def test_an_embedding_that_rescales_its_rows_is_baked_apart_from_the_head() -> None:
    """With max_norm an embedding changes its weight in place when it is read, which must not change the head's."""
    network = Tied()
    network.embedding.max_norm = 0.1
    normalize(network, "sn")
    refresh_(network)
    baked, words, features = bake(network), torch.arange(7), torch.randn(3, 4)
    expected = network.head(features)
    baked.embedding(words)
    torch.testing.assert_close(baked.head(features), expected)


@pytest.mark.parametrize("choice", WEIGHT_NORMALIZATIONS)
def test_half_tied_weights(choice: str) -> None:
    """A parameter that is normalized in one place and raw in another is warned of; baking changes neither place."""
    network = Tied()
    (message,) = said(lambda: normalize(network, choice, exclude="head", example=TIED_EXAMPLE))
    assert "head (the same parameter as embedding, which is normalized: exclude both or neither)" in message
    refresh_(network)
    raw, used = network.head.weight.detach().clone(), network.embedding.weight.detach().clone()
    assert not torch.equal(raw, used)
    baked = bake(network)
    assert torch.equal(baked.head.weight, raw)
    torch.testing.assert_close(baked.embedding.weight, used)
    assert said(lambda: normalize(Tied(), choice, exclude=("head", "embedding"), example=TIED_EXAMPLE)) == []


def test_a_network_with_a_zero_head_trains_and_is_baked() -> None:
    network = nn.Sequential(nn.Linear(4, 4), filled(nn.Linear(4, 1), 0))
    (message,) = said(lambda: normalize(network, "srn"))
    assert "1 (all zero)" in message
    network(torch.ones(1, 4)).sum().backward()
    assert torch.equal(bake(network)[1].weight, network[1].weight)
    assert torch.equal(copy.deepcopy(network)[1].weight, torch.zeros(1, 4))


@pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "hook",
    [
        nn.utils.spectral_norm,
        nn.utils.weight_norm,
        lambda layer: prune.random_unstructured(layer, "weight", 0.5),
    ],
    ids=["spectral_norm", "weight_norm", "prune"],
)
def test_a_weight_that_a_hook_computes_is_one_weight(hook: Callable[[nn.Module], nn.Module]) -> None:
    """weight_orig, weight_g and weight_v are no weights beside it, in spectra and in the warning of the rest."""
    network = nn.Sequential(hook(nn.Linear(4, 4)), nn.Linear(4, 4))
    assert [row.name for row in spectra(network)] == ["0", "1"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        normalize(network, "sn", exclude="0.weight")
    assert [found.name for found in normalized_weights(network)] == ["1"]


def test_spectra_leave_parametrizations_of_others_as_they_are() -> None:
    """torch's spectral_norm iterates at every access in training mode."""
    network = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)))
    before = copy.deepcopy(network.state_dict())
    spectra(network)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(module.training for module in network.modules())
