"""Tests of the ResNet extractor: the classifier's own numbers, its name, damaged files, tools/make_extractor.py."""

import importlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import save, save_file
from torch import Tensor, nn

from evaluation import EvaluationError, Sources, build_extractor
from evaluation.extractors import resnet
from evaluation.extractors.resnet import ResNetExtractor, Weights, load_weights, shapes, write_weights
from evaluation.images.features import extract
from evaluation.runtime.weights_file import checksum_of
from gan.build_classifier import build_classifier_state, load_labelled_images
from gan.config.classifier import ClassifierConfig
from gan.data import ImageData
from gan.data.packed import pack
from gan.data.pixels import to_float
from gan.errors import ConfigError
from gan.models.classifiers import ResNet
from gan.normalization import bake, normalize, update_
from gan.runs.checkpoint import save_checkpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("make_extractor")


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLASSIFIER_WEIGHTS", raising=False)


def classifier(depth: int = 8, channels: int = 4, num_classes: int = 3) -> ResNet:
    """Classifier with random weights and batch norms with non-trivial means, variances and scales."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = ResNet(num_classes, depth, channels)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.5)
                module.running_var.uniform_(0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.5)
        nn.init.normal_(network.linear.bias)
    return network.eval()


def representable(network: ResNet) -> ResNet:
    """Classifier whose folded weights are exact in float16: scales are powers of two, the rest has few digits."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 2**-10
            module.running_var.fill_(1 - module.eps)
            module.weight.data.copy_(2 ** module.weight.data.log2().round())
            for values in (module.running_mean, module.bias.data):
                values.copy_((values * 64).round() / 64)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            for parameter in module.parameters():
                parameter.data.copy_((parameter.data * 512).round() / 512)
    return network


def own_answers(network: ResNet, images: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs of a classifier's last layer, and its logits."""
    fed: list[Tensor] = []
    handle = network.linear.register_forward_pre_hook(lambda _, given: fed.append(given[0]))
    with torch.inference_mode():
        logits = network(to_float(images))
    handle.remove()
    return fed[0], logits


def deviation(one: Tensor, other: Tensor) -> float:
    """Largest difference relative to the largest value."""
    return float((one - other).abs().max() / other.abs().max())


def random_weights(seed: int = 0, **settings: Any) -> Weights:
    header = {"depth": 8, "channels": 2, "num_classes": 3, "image_size": 32, **settings}
    generator = torch.Generator().manual_seed(seed)
    sizes = shapes(header["depth"], header["channels"], header["num_classes"])
    state = {name: torch.randn(shape, generator=generator).half() for name, shape in sizes.items()}
    return Weights(**header, state=state, record={"data": "drawn", "test_accuracy": 0.5, "test_images": 20})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_weights(tmp_path / "weights.st", random_weights())
    return tmp_path / "weights.st"


@pytest.mark.parametrize(("depth", "channels"), [(8, 4), (20, 6)])
def test_it_computes_what_the_classifier_computes(tool: ModuleType, drawn, depth: int, channels: int):
    network, images = representable(classifier(depth, channels)), drawn(9, seed=5)[0]
    folded = tool.folded(network)
    assert all(torch.equal(tensor, tensor.half().float()) for tensor in folded.values())
    features, logits = ResNetExtractor(tool.rounded(network, 32))(images)
    expected_features, expected_logits = own_answers(network, images)
    assert features.shape == (9, 4 * channels)
    assert features.dtype == logits.dtype == torch.float32
    # The same weights in another order of float32 sums.
    assert deviation(features, expected_features) < 1e-5
    assert deviation(logits, expected_logits) < 1e-5


@pytest.mark.parametrize("choice", ["none", "sn", "srn"])
def test_rounding_to_float16_changes_the_third_digit_at_most(tool: ModuleType, drawn, choice: str):
    network, images = normalize(classifier(20, 8, 10), choice), drawn(9, seed=5)[0]
    for _ in range(3):
        update_(network)
    plain = bake(network)
    features, logits = ResNetExtractor(tool.rounded(plain, 32))(images)
    expected_features, expected_logits = own_answers(plain, images)
    # float16 rounds each weight by up to 5e-4 of itself; 20 layers of many weights each average that out.
    assert deviation(features, expected_features) < 3e-3
    assert deviation(logits, expected_logits) < 3e-3


def test_values_depend_neither_on_the_batch_size_nor_on_the_layout(file: Path, drawn):
    extractor, images = build_extractor("resnet", Sources(classifier_weights=file)), drawn(50, seed=5)[0]
    one, many = (extract(images, extractor, batch_size=size, device="cpu") for size in (7, 50))
    last = extract(images.to(memory_format=torch.channels_last), extractor, batch_size=50, device="cpu")
    # float32 sums in another order.
    assert deviation(one.features, many.features) < 1e-6
    assert deviation(one.logits, many.logits) < 1e-6
    assert torch.equal(last.features, many.features)


def test_it_is_named_after_its_depth_and_weights(file: Path):
    before = torch.get_rng_state()
    extractor = build_extractor("resnet", Sources(classifier_weights=file))
    assert torch.equal(before, torch.get_rng_state())
    assert extractor.has_logits
    assert extractor.name == f"resnet8-{extractor.fingerprint[:8]}"
    assert extractor.protocol == {"extractor": "resnet8-v1", "extractor_weights": extractor.fingerprint}
    assert extractor.record == {
        "data": "drawn",
        "test_accuracy": 0.5,
        "test_images": 20,
        "weights_file": str(file),
    }
    weights = load_weights(file)
    same = ResNetExtractor(replace(weights, record={}))
    assert same.fingerprint == extractor.fingerprint
    weights.state["blocks.2.conv2.bias"][1] += 1
    assert ResNetExtractor(weights).fingerprint != extractor.fingerprint
    assert ResNetExtractor(random_weights(depth=14)).name.startswith("resnet14-")


def test_a_file_holds_what_was_written_and_nothing_else(tmp_path: Path):
    weights = random_weights(image_size=64, channels=3)
    # Weights as a network in channels-last layout with gradients has them, each a part of a larger tensor.
    weights.state["conv.bias"] = torch.cat([weights.state["conv.bias"], torch.zeros(10**5).half()])[:3]
    weights.state["linear.bias"].requires_grad_()
    write_weights(tmp_path / "one.st", weights)
    write_weights(tmp_path / "two.st", weights)
    assert (tmp_path / "one.st").read_bytes() == (tmp_path / "two.st").read_bytes()
    assert (tmp_path / "one.st").stat().st_size < 30_000
    read = load_weights(tmp_path / "one.st")
    assert read.state.keys() == weights.state.keys()
    assert all(torch.equal(read.state[name], tensor) for name, tensor in weights.state.items())
    for name in ("depth", "channels", "num_classes", "image_size", "record"):
        assert getattr(read, name) == getattr(weights, name)
    assert {entry.name for entry in tmp_path.iterdir()} == {"one.st", "two.st"}


def test_images_of_another_size_are_refused(file: Path, drawn):
    extractor = build_extractor("resnet", Sources(classifier_weights=file))
    with pytest.raises(EvaluationError, match=r"extractor resnet8-.*: got images of 64x64, expected 32x32"):
        extractor(drawn(2, seed=5, side=64)[0])
    with pytest.raises(EvaluationError, match="got images of 32x16"):
        extractor(drawn(2, seed=5)[0][..., :16])


def test_weights_are_looked_for_in_order(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = {}
    for seed, place in enumerate(("bundled", "variable", "option")):
        write_weights(tmp_path / f"{place}.st", random_weights(seed))
        names[place] = ResNetExtractor(random_weights(seed)).name
    monkeypatch.setattr(resnet, "BUNDLED", tmp_path / "bundled.st")
    assert build_extractor("resnet", Sources()).name == names["bundled"]
    monkeypatch.setenv("CLASSIFIER_WEIGHTS", str(tmp_path / "variable.st"))
    assert build_extractor("resnet", Sources()).name == names["variable"]
    assert build_extractor("resnet", Sources(classifier_weights=tmp_path / "option.st")).name == names["option"]


def test_weights_that_are_not_there_are_said_to_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resnet, "BUNDLED", tmp_path / "bundled.st")
    advice = (
        r"make one .* with tools/make_extractor\.py, and give its path with --classifier-weights, eval\."
        r"classifier_weights or"
    )
    with pytest.raises(EvaluationError, match=rf"ResNet weights: no file .*bundled.st; {advice}"):
        build_extractor("resnet", Sources())
    with pytest.raises(EvaluationError, match=rf"ResNet weights: no file .*nowhere.st; {advice}"):
        build_extractor("resnet", Sources(classifier_weights=tmp_path / "nowhere.st"))
    monkeypatch.setenv("CLASSIFIER_WEIGHTS", str(tmp_path))
    with pytest.raises(EvaluationError, match=r"ResNet weights \(\$CLASSIFIER_WEIGHTS\): no file"):
        build_extractor("resnet", Sources())


def test_the_bundled_file_is_small_and_named_in_the_documentation():
    if not resnet.BUNDLED.is_file():
        pytest.skip("no classifier has been trained for this package yet")
    assert resnet.BUNDLED.stat().st_size < 2**20
    assert build_extractor("resnet", Sources()).name in (ROOT / "docs" / "metrics.md").read_text()


def _without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.pop(name)


def _with(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.update({name: value})


def _state(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["state"].update({name: value})


def _write_damaged(file: Path, other: Path, damage: Callable[[dict[str, Any]], object]) -> None:
    """Writes another file with changed content and the checksum of that content."""
    with safe_open(file, framework="pt") as opened:
        content = json.loads(opened.metadata()["resnet"])
        content["state"] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    damage(content)
    state = content.pop("state")
    header = {name: value for name, value in content.items() if name not in ("format", "sha256")}
    content["sha256"] = checksum_of(header, state)
    other.write_bytes(save(state, {"resnet": json.dumps(content)}))


NOT_FINITE = torch.tensor([0, float("inf")]).half()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_without("format"), "it is damaged, or not"),
        (_with("format", 3), "format: got 3, expected 2"),
        (_without("record"), "got wrong entries, expected channels, depth"),
        (_with("more", 1), "got wrong entries"),
        (_with("depth", 12), r"depth: got 12, expected 6 n \+ 2"),
        (_with("depth", 2), "depth: got 2, expected a whole number from 8 to 1202"),
        (_with("depth", 2**100), "depth: got 1267650600228229401496703205376, expected"),
        (_with("depth", "8"), "depth: got '8', expected"),
        (_with("depth", 14), "state: got wrong names, expected the 32 tensors"),
        (_with("channels", 4), r"state: conv.weight: got torch.float16 \(2, 3, 3, 3\), expected .*\(4, 3, 3, 3\)"),
        (_with("channels", 2**40), "channels: got 1099511627776, expected"),
        (_with("num_classes", 1), "num_classes: got 1, expected"),
        (_with("image_size", True), "image_size: got True, expected"),
        (_state("more", torch.zeros(3)), "state: got wrong names"),
        (_state("linear.bias", torch.zeros(3)), "state: linear.bias: got torch.float32"),
        (_state("conv.bias", NOT_FINITE), "state: conv.bias: got values that are not finite in float16"),
        (_with("record", ["a"]), r"record: got \['a'\], expected at most 50"),
        (
            _with("record", {str(index): 1 for index in range(51)}),
            r"record: got {'0': 1, .*\.\.\., expected at most 50",
        ),
        (_with("record", {"name": "fid"}), "record: got 'name' for a name"),
        (_with("record", {"a": "b\nc"}), "record: a: got .*, expected a number or one line"),
        (_with("record", {"a": "\ud800"}), "record: a: got"),
        (_with("record", {"a": "x" * 1001}), r"record: a: got 'x+\.\.\., expected"),
        (_with("record", {"a": float("nan")}), "record: a: got nan"),
        (_with("record", {"a": None}), "record: a: got None"),
        (_with("record", {"a": -(2**63)}), "record: a: got -9223372036854775808"),
    ],
)
def test_a_file_with_other_content_is_refused(
    damage: Callable[[dict[str, Any]], object], reason: str, file: Path, tmp_path: Path
):
    other = tmp_path / "other.st"
    _write_damaged(file, other, damage)
    pattern = rf"ResNet weights: .*other.st is not a file of tools/make_extractor\.py \({reason}.*\); make it again"
    with pytest.raises(EvaluationError, match=pattern) as caught:
        build_extractor("resnet", Sources(classifier_weights=other))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("content", ["truncated", "foreign", "foreign header", "list", "pickle"])
def test_a_file_of_something_else_is_refused(content: str, file: Path, tmp_path: Path):
    other = tmp_path / "other.st"
    tensors = {"a": torch.zeros(3)}
    if content == "truncated":
        other.write_bytes(file.read_bytes()[:2000])
    elif content == "foreign":
        save_file(tensors, other)
    elif content == "foreign header":
        save_file(tensors, other, {"resnet": "not JSON"})
    elif content == "list":
        save_file(tensors, other, {"resnet": "[" * 10**5})
    else:
        torch.save(tensors, other)
    sentence = r"other.st is not a file of tools/make_extractor\.py \(it is damaged, or not .*\)"
    with pytest.raises(EvaluationError, match=sentence) as caught:
        build_extractor("resnet", Sources(classifier_weights=other))
    assert "\n" not in str(caught.value)


def test_a_file_of_format_1_holds_the_same_network(file: Path, tmp_path: Path):
    weights, old = load_weights(file), tmp_path / "old.pt"
    torch.save({"format": 1, **vars(weights)}, old)
    extractor, same = (build_extractor("resnet", Sources(classifier_weights=path)) for path in (old, file))
    assert (extractor.name, extractor.protocol) == (same.name, same.protocol)
    assert extractor.record == {**same.record, "weights_file": str(old)}
    place = old.read_bytes().find(weights.state["linear.weight"].numpy().tobytes())
    old.write_bytes(old.read_bytes()[:place] + b"\xff" + old.read_bytes()[place + 1 :])
    with pytest.raises(EvaluationError, match=r"old\.pt is not a file .* \(it is damaged, or unpacks to more"):
        load_weights(old)
    few = torch.zeros(1).half().expand(weights.state["linear.weight"].shape)
    torch.save({"format": 1, **vars(replace(weights, state={**weights.state, "linear.weight": few}))}, old)
    with pytest.raises(EvaluationError, match="it is a PyTorch file of another format"):
        load_weights(old)


def test_a_file_that_cannot_be_read_is_not_called_damaged(file: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("evaluation.runtime.weights_file.safe_open", refuse)
    with pytest.raises(EvaluationError, match=r"weights\.st .*\(it cannot be read: Permission denied\)"):
        load_weights(file)


def test_a_bit_that_has_flipped_is_noticed(file: Path, tmp_path: Path):
    whole, weights = file.read_bytes(), load_weights(file)
    positions = torch.randint(8 * len(whole), (200,), generator=torch.Generator().manual_seed(0)).tolist()
    header = 8 * (8 + int.from_bytes(whole[:8], "little"))
    positions += torch.randint(header, (200,), generator=torch.Generator().manual_seed(1)).tolist()
    refused = 0
    for position in positions:
        changed = bytearray(whole)
        changed[position // 8] ^= 1 << position % 8
        (tmp_path / "changed.st").write_bytes(changed)
        try:
            read = load_weights(tmp_path / "changed.st")
        except EvaluationError:
            refused += 1
            continue
        # White space in the header may change without harm.
        assert all(torch.equal(read.state[name], tensor) for name, tensor in weights.state.items())
        assert read.record == weights.record
    assert refused > 350


@pytest.fixture
def test_images(drawn) -> ImageData:
    images, labels = drawn(40, seed=2)
    return ImageData(images, labels, ("bright", "dark", "other"), "drawn", "test")


def test_export_writes_what_the_classifier_says(tool: ModuleType, test_images: ImageData, tmp_path: Path):
    network = normalize(classifier(14, 4).to(memory_format=torch.channels_last), "srn", c=0.5)
    for _ in range(3):
        update_(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    exported = tool.export(network, test_images, record={"data": "drawn"}, out=tmp_path / "out.st")
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    extractor = build_extractor("resnet", Sources(classifier_weights=tmp_path / "out.st"))
    assert (exported.name, exported.fingerprint) == (extractor.name, extractor.fingerprint)
    assert exported.num_bytes == (tmp_path / "out.st").stat().st_size
    logits = own_answers(bake(network), test_images.images)[1]
    assert deviation(extractor(test_images.images)[1], logits) < 3e-3
    right = int((logits.argmax(1) == test_images.labels).sum())
    assert exported.on_test.right_before == right
    assert extractor.record["test_accuracy"] == exported.on_test.right / 40
    assert extractor.record["test_images"] == exported.num_test == 40
    assert extractor.record["data"] == "drawn"


@pytest.fixture
def run(tmp_path: Path, small_shapes: Path) -> Callable[..., Path]:
    """Run folder of an untrained classifier."""

    def make(title: str = "Shapes", **settings: Any) -> Path:
        data = {"name": "shapes", "root": str(small_shapes), "title": title}
        wanted = {"name": "resnet", "depth": 8, "channels": 4, "normalization": "srn", **settings}
        config = ClassifierConfig(name="tiny", data=data, classifier=wanted)
        state = build_classifier_state(config)
        state.class_names = load_labelled_images(config, "test").classes
        state.data_fingerprint = "1a2b"
        save_checkpoint(tmp_path / "run", config.model_dump(), state.state_dict(), keep_last=1)
        return tmp_path / "run"

    (tmp_path / "run").mkdir()
    return make


def test_the_tool_makes_an_extractor_of_a_run(tool: ModuleType, run: Callable[..., Path], tmp_path: Path):
    folder, out = run(), tmp_path / "made" / "out.st"
    result = CliRunner().invoke(tool.main, ["--run", str(folder), "--out", str(out)])
    assert result.exit_code == 0, result.output
    extractor = build_extractor("resnet", Sources(classifier_weights=out))
    assert result.output.startswith(f"{extractor.name}: {out}, 0.0")
    assert extractor.fingerprint in result.output
    assert f"test accuracy {extractor.record['test_accuracy']:.2%} on 300 images" in result.output
    assert extractor.record["data"] == "Shapes"
    assert extractor.record["data_fingerprint"] == "1a2b"
    assert extractor.record["experiment"] == "tiny"
    assert extractor.record["normalization"] == "srn"
    again = CliRunner().invoke(tool.main, ["--run", str(next(folder.rglob("*.pt"))), "--out", str(tmp_path / "b.st")])
    assert again.exit_code == 0, again.output
    assert (tmp_path / "b.st").read_bytes() == out.read_bytes()


def test_the_tool_refuses_in_one_sentence(
    tool: ModuleType, run: Callable[..., Path], test_images: ImageData, tmp_path: Path
):
    def refused(*arguments: object) -> str:
        result = CliRunner().invoke(tool.main, [str(argument) for argument in arguments])
        assert result.exit_code == 2, result.output
        assert result.output.count("\n") == 1, result.output
        return result.output

    out = tmp_path / "out.st"
    assert "no such checkpoint" in refused("--run", tmp_path / "nowhere", "--out", out)
    vgg = run(name="vgg", depth=11, channels=2)
    assert "the classifier is a VGG, expected a ResNet" in refused("--run", vgg, "--out", out)
    titled = run(title="x" * 2000)
    assert re.search(
        r"record: data: got 'x+\.\.\., expected a number or one line", refused("--run", titled, "--out", out)
    )
    whole = run()
    (tmp_path / "file").write_text("")
    assert "file" in refused("--run", whole, "--out", tmp_path / "file" / "out.st")
    known = ImageData(test_images.images, test_images.labels, ("bright", "dark"), "shapes", "test")
    other = pack({"test": known}, tmp_path / "other", image_size=32, crop=0, resize="none", overwrite=False)
    sentence = refused("--run", whole, "--out", out, "--data-root", other)
    assert f"the test images at {other} have the classes bright, dark, expected those of training: circle" in sentence
    assert not out.exists()


def test_export_counts_answers(tool: ModuleType, test_images: ImageData, monkeypatch: pytest.MonkeyPatch):
    class Network(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.where(images.mean((1, 2, 3)) > 0, 0.5, 1.0)[:, None] * torch.tensor([0.0, 4.0, 1.0])

    def extractor(images: Tensor) -> tuple[Tensor, Tensor]:
        dark = (images.float().mean((1, 2, 3)) > 128).float()
        return dark, torch.stack([6 * (1 - dark), torch.full_like(dark, 4), torch.ones_like(dark)], 1)

    order = test_images.labels.argsort()  # bright images, which are answered otherwise, come before dark ones
    monkeypatch.setattr(tool, "BATCH_SIZE", 8)
    found = tool.compared(Network(), extractor, test_images.images[order], test_images.labels[order])
    assert found == tool.Agreement(deviation=6, largest=4, changed=20, right=40, right_before=20)


def test_export_refuses_weights_that_float16_does_not_hold(tool: ModuleType, test_images: ImageData, tmp_path: Path):
    network = classifier()
    network.linear.weight.data[0, 0] = 1e5
    with pytest.raises(EvaluationError, match=r"state: linear\.weight: got values that are not finite in float16"):
        tool.export(network, test_images, record={}, out=tmp_path / "out.st")
    network = classifier()
    network.linear.weight.data *= 1e-9  # float16 has nothing between 0 and 6e-8
    network.linear.bias.data.zero_()
    with pytest.raises(ConfigError, match=r"in float16 logits of random images change by up to"):
        tool.export(network, test_images, record={}, out=tmp_path / "out.st")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("on_noise", "on_test", "sentence"),
    [
        ({"deviation": 0.02}, {}, "logits of random images change by up to 0.02, where the largest is 1, expected"),
        ({}, {"deviation": 0.02}, "logits of the test images change by up to 0.02"),
        ({}, {"deviation": float("nan")}, "logits of the test images change by up to nan"),
        ({"changed": 40}, {"changed": 2}, "2 of 40 predictions on the test images change"),
    ],
)
def test_export_refuses_other_answers(
    tool: ModuleType,
    on_noise: dict[str, float],
    on_test: dict[str, float],
    sentence: str,
    test_images: ImageData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    answers = [tool.Agreement(0.01, 1.0, 1, 0, 0)._replace(**changes) for changes in (on_noise, on_test)]
    monkeypatch.setattr(tool, "compared", lambda *_: answers.pop(0))
    with pytest.raises(ConfigError, match=f"in float16 {sentence}"):
        tool.export(classifier(), test_images, record={}, out=tmp_path / "out.st")
    assert not list(tmp_path.iterdir())
