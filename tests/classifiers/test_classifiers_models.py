"""Tests of gan.models.classifiers: parameter counts, blocks against torchvision, normalization of every layer."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import densenet, resnet, vgg

from gan.models.classifiers import CLASSIFIERS, VGG, AlexNet, DenseNet, ResNet, WideResNet
from gan.models.classifiers.densenet import DenseLayer, Transition
from gan.models.classifiers.resnet import BasicBlock
from gan.models.classifiers.wide_resnet import PreActivationBlock
from gan.normalization import NORMALIZATIONS, NORMALIZED_LAYERS, bake, normalize, normalized_weights, spectra, update_

SMALL: dict[str, dict[str, int]] = {
    "resnet": {"depth": 8, "channels": 4},
    "wide_resnet": {"depth": 10, "width": 1},
    "densenet": {"depth": 10, "growth": 4},
    "vgg": {"depth": 11, "channels": 4},
    "alexnet": {"channels": 8},
}


def small(name: str, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLASSIFIERS[name](10, **SMALL.get(name, {}))


def images(count: int = 4, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def count(name: str, num_classes: int, **settings: int) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in CLASSIFIERS[name](num_classes, **settings).parameters())


@pytest.mark.parametrize(
    ("name", "hundred", "ten"),
    [
        ("resnet", 1_736_564, 1_730_714),
        ("wide_resnet", 36_536_884, 36_479_194),
        ("densenet", 800_032, 769_162),
        ("vgg", 20_086_692, 20_040_522),
        ("alexnet", 2_495_396, 2_472_266),
    ],
)
def test_parameters_of_the_papers_networks(name: str, hundred: int, ten: int) -> None:
    """Parameter counts of the SRN paper's architectures, the defaults, with 100 and with 10 classes."""
    assert (count(name, 100), count(name, 10)) == (hundred, ten)


def test_counts_printed_in_the_paper() -> None:
    """docs/classifiers.md explains the printed counts, except ResNet-110's, which has no known explanation."""
    assert count("densenet", 100) == 800_032
    assert count("wide_resnet", 100, shortcut_bn=True) == 36_539_124
    assert count("vgg", 1000) == 20_548_392
    head = 256 * 100 + 100
    assert 2 * (count("alexnet", 100) - head) + head == 4_965_092


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("resnet", {"depth": 20}, 272_474),
        ("resnet", {"depth": 56}, 855_770),
        ("wide_resnet", {"depth": 16, "width": 2}, 691_674),
        ("wide_resnet", {"depth": 40, "width": 4}, 8_949_210),
        ("densenet", {"depth": 22}, 71_686),
        ("densenet", {"depth": 40}, 176_122),
        ("vgg", {"depth": 11}, 9_231_114),
        ("vgg", {"depth": 16}, 14_728_266),
    ],
)
def test_parameters_of_smaller_members(name: str, settings: dict[str, int], expected: int) -> None:
    assert count(name, 10, **settings) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("resnet", 110 + 2), ("wide_resnet", 28 + 1), ("densenet", 100), ("vgg", 19 - 2), ("alexnet", 6)],
)
def test_what_the_depths_count(name: str, expected: int) -> None:
    """Depths count convolutions and linear layers; WRN counts shortcuts and no head, VGG two more linear layers."""
    with torch.device("meta"):
        network = CLASSIFIERS[name]()
    layers = [one for one, module in network.named_modules() if isinstance(module, NORMALIZED_LAYERS)]
    shortcuts = [one for one in layers if "shortcut" in one]
    assert len(shortcuts) == {"resnet": 2, "wide_resnet": 3}.get(name, 0)
    assert len(layers) == expected


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_logits_are_float32_and_the_images_stay(name: str) -> None:
    network, x = small(name), images()
    before = x.clone()
    logits = network(x)
    assert (logits.shape, logits.dtype) == ((4, 10), torch.float32)
    assert torch.equal(x, before)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(x).dtype == torch.float32
    assert small(name).double()(x.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnet", {"depth": 21}, "depth: got 21, expected 6 n \\+ 2, such as 20, 56 or 110"),
        ("resnet", {"depth": 2}, "depth: got 2,"),
        ("wide_resnet", {"depth": 20}, "depth: got 20, expected 6 n \\+ 4"),
        ("densenet", {"depth": 12}, "depth: got 12, expected 6 n \\+ 4"),
        ("vgg", {"depth": 20}, "depth: got 20, expected one of 11, 13, 16, 19"),
        *((name, {"num_classes": 1}, "num_classes: got 1, expected 2 or more") for name in CLASSIFIERS),
    ],
)
def test_what_is_not_there_is_refused(name: str, settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CLASSIFIERS[name](**settings)


def filled(network: nn.Module, other: nn.Module) -> nn.Module:
    """Network with another's parameters and buffers, drawn at random and matched in order."""
    generator = torch.Generator().manual_seed(1)
    for tensor in other.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    ours = network.state_dict()
    network.load_state_dict(dict(zip(ours, other.state_dict().values(), strict=True)))
    return network.double().eval()


@pytest.mark.parametrize(("widths", "stride"), [((4, 4), 1), ((4, 6), 2)])
def test_the_residual_block_is_torchvisions(widths: tuple[int, int], stride: int) -> None:
    shortcut = nn.Sequential(nn.Conv2d(*widths, 1, stride, bias=False), nn.BatchNorm2d(widths[1]))
    theirs = resnet.BasicBlock(*widths, stride, shortcut if stride > 1 else None)
    ours, x = filled(BasicBlock(*widths, stride), theirs), torch.randn(2, 4, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs.double().eval()(x), rtol=1e-12, atol=0)


def test_the_dense_layer_and_the_transition_are_torchvisions() -> None:
    x = torch.randn(2, 6, 8, 8, dtype=torch.float64)
    layer = densenet._DenseLayer(6, 3, bn_size=4, drop_rate=0)
    ours = filled(DenseLayer(6, 3), layer)
    torch.testing.assert_close(ours(x), torch.cat([x, layer.double().eval()(x)], 1), rtol=1e-12, atol=0)
    transition = densenet._Transition(6, 3)
    ours = filled(Transition(6), transition)
    torch.testing.assert_close(ours(x), transition.double().eval()(x), rtol=1e-12, atol=0)


@pytest.mark.parametrize("depth", [11, 19])
def test_the_convolutions_of_vgg_are_torchvisions(depth: int) -> None:
    with torch.device("meta"):
        theirs, ours = {11: vgg.vgg11_bn, 19: vgg.vgg19_bn}[depth]().features, VGG(depth=depth).features
    assert [type(module) for module in ours] == [type(module) for module in theirs]
    shapes = [{key: tensor.shape for key, tensor in network.state_dict().items()} for network in (ours, theirs)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("shortcut_bn", [False, True])
def test_the_wide_block_is_the_papers_written_plainly(shortcut_bn: bool) -> None:
    """Zagoruyko & Komodakis: where the width changes, the shortcut also takes the activated input."""
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    block = PreActivationBlock(4, 6, 2, shortcut_bn=shortcut_bn).double()
    a = F.relu(block.bn1(x))
    h = F.conv2d(F.relu(block.bn2(F.conv2d(a, block.conv1.weight, stride=2, padding=1))), block.conv2.weight, padding=1)
    assert block.shortcut is not None
    short = F.conv2d(a, block.shortcut[0].weight, stride=2)
    if shortcut_bn:
        short = F.batch_norm(short, None, None, training=True)
    torch.testing.assert_close(block(x), h + short, rtol=0, atol=1e-11)
    plain = PreActivationBlock(4, 4, 1, shortcut_bn=shortcut_bn).double()
    assert plain.shortcut is None
    h = plain.conv2(F.relu(plain.bn2(plain.conv1(F.relu(plain.bn1(x))))))
    torch.testing.assert_close(plain(x), h + x, rtol=0, atol=1e-11)


def test_resolution_falls_by_four_in_three_stages() -> None:
    for network in (ResNet(10, 8, 4), WideResNet(10, 10, 1), DenseNet(10, 10, 4)):
        assert network.blocks(network.conv(images())).shape[2:] == (8, 8)
    for network in (VGG(10, 11, 4), AlexNet(10, 8)):
        assert network.features(images()).shape[2:] == (1, 1)


def test_initialization_is_he_by_fan_out() -> None:
    """The standard deviation of n normal samples is within a relative 5 / sqrt(2 n) of the true value."""
    for network in (WideResNet(10, 10, 2), DenseNet(10, 10, 12), ResNet(10, 8, 32), VGG(10, 11, 16)):
        for place, module in network.named_modules():
            if isinstance(module, nn.Conv2d):
                kernel = module.kernel_size[0] * module.kernel_size[1]
                expected = (2 / (module.out_channels * kernel)) ** 0.5
                bound = 5 / (2 * module.weight.numel()) ** 0.5
                assert float(module.weight.detach().std()) == pytest.approx(expected, rel=bound), place
                assert module.bias is None or not module.bias.any()


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("choice", ["none", "sn", "srn", "bsn"])
def test_every_layer_can_be_normalized(name: str, choice: str) -> None:
    """Covers forward, backward, update, loading into a new network, and baked weights of the same function."""
    settings = {"c": 0.3} if choice == "srn" else {}
    network, x = normalize(small(name), choice, **settings), images()
    expected = [one for one, module in network.named_modules() if isinstance(module, NORMALIZED_LAYERS)]
    normalized = [found.layer for found in normalized_weights(network)]
    assert normalized == (expected if NORMALIZATIONS[choice].apply else [])
    F.cross_entropy(network(x), torch.arange(4)).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())
    update_(network)
    fresh = normalize(small(name, seed=1), choice, **settings)
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(fresh(x), network(x))
    baked = bake(copy.deepcopy(network)).eval()
    assert not list(normalized_weights(baked))
    assert baked.state_dict().keys() == small(name).state_dict().keys()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_stable_ranks_are_bounded_where_they_can_be(name: str) -> None:
    """A baked layer has spectral norm 1 and stable rank at most c * min(rows, columns), by SVD."""
    plain, c = small(name), 0.3
    baked = spectra(bake(normalize(copy.deepcopy(plain), "srn", c=c)))
    lowered = 0
    for before, after in zip(spectra(plain), baked, strict=True):
        weight = plain.get_submodule(before.name).weight.flatten(1)  # type: ignore[union-attr, operator]
        bound = c * min(weight.shape)
        assert after.sigma == pytest.approx(1, abs=1e-5)
        if bound > 1:
            assert after.stable_rank <= bound * (1 + 1e-5), after.name
            lowered += before.stable_rank > bound
        else:
            assert after.stable_rank == pytest.approx(before.stable_rank, rel=1e-5)
    assert lowered > 0
