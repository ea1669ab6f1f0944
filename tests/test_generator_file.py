"""Generators in half precision: gan-export, which writes them, gan-sample with them, and the demo of the package."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from commands import call, done, refused
from PIL import Image
from torch import nn

from gan.build import load_generator
from gan.data.shapes import SHAPES
from gan.errors import CheckpointError
from gan.measuring import generator_file
from gan.measuring.generator_file import DEMO, halved, read_generator
from gan.measuring.sampling import generate
from gan.noise import balanced_labels, draw_latents, random_generator
from gan.runs.samples import Source

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ("conditional=true", "train.steps=2", "train.ema_decay=0.5")


@pytest.fixture(scope="session")
def measured(trained: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conditional run with a report; tests only read it."""
    run = shutil.copytree(trained(*SETTINGS), tmp_path_factory.mktemp("measured") / "run")
    done(call("gan-eval", "--run", run, "--metrics", "fid", "--device", "cpu"))
    return run


def export(*arguments: object) -> Result:
    return call("gan-export", "--half", *arguments)


@pytest.fixture(scope="session")
def file(measured: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "made"
    result = done(export("--run", measured, "--out", out))
    assert f"{out / 'generator.safetensors'}: 0." in result.output
    return out / "generator.safetensors"


def images_of(generator: nn.Module, count: int = 40) -> torch.Tensor:
    """int (count, 3, 32, 32), of all classes."""
    z_dim = generator.get_submodule("linear").in_features
    assert isinstance(z_dim, int)
    latents = draw_latents(count, z_dim, random_generator(5, "samples"))
    return generate(generator, latents, balanced_labels(count, 10), batch_size=count, device="cpu").int()


def test_weights_are_the_averaged_ones_to_half_a_unit_in_the_last_place(file: Path, measured: Path) -> None:
    exact, found = load_generator(measured).state_dict(), read_generator(file).source.generator.state_dict()
    assert found.keys() == exact.keys()
    assert not torch.equal(exact["to_rgb.weight"], load_generator(measured, ema=False).state_dict()["to_rgb.weight"])
    for name, tensor in found.items():
        assert tensor.dtype == exact[name].dtype
        # float16 has 11 significant bits, and steps of 2^-24 below 2^-14.
        bound = (exact[name].abs() * 2**-11).clamp(min=2**-25)
        assert bool(((tensor - exact[name]).abs() <= bound).all()), name


def test_images_are_those_of_the_rounded_weights(file: Path, measured: Path) -> None:
    rounded = load_generator(measured)
    rounded.load_state_dict({name: halved(tensor) for name, tensor in rounded.state_dict().items()})
    assert torch.equal(images_of(read_generator(file).source.generator), images_of(rounded))


def test_images_differ_from_the_checkpoints_by_no_more_than_rounding_allows(file: Path, measured: Path) -> None:
    """A pixel p(w) changes by at most sum |dp/dw| |dw|, to first order, with |dw| as above; then both are rounded."""
    exact, found = load_generator(measured), read_generator(file).source.generator
    buffers = dict(exact.named_buffers())
    found.load_state_dict(buffers, strict=False)  # running statistics have no derivatives
    latents, labels = draw_latents(4, 16, random_generator(5, "samples")), torch.arange(4)
    exact.requires_grad_(True)
    pixels, weights = exact(latents, labels), list(exact.parameters())
    with torch.no_grad():
        changes = (found(latents, labels) - pixels).abs()
    for place in ((0, 0, 3, 5), (1, 1, 16, 16), (2, 2, 31, 0), (3, 0, 8, 24)):
        slopes = torch.autograd.grad(pixels[place], weights, retain_graph=True)
        errors = [(weight.detach().abs() * 2**-11).clamp(min=2**-25) for weight in weights]
        bound = sum(float((slope.abs() * error).sum()) for slope, error in zip(slopes, errors, strict=True))
        assert 0 < float(changes[place]) <= bound
        assert bound < 0.05  # 6 grey levels; what is seen is far less, because roundings have both signs


def test_the_same_run_gives_the_same_bytes(file: Path, measured: Path, tmp_path: Path) -> None:
    done(export("--run", measured, "--out", tmp_path / "again"))
    for name in ("generator.safetensors", "discriminator.safetensors", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (file.parent / name).read_bytes()


def test_the_file_tells_no_place_on_this_machine(file: Path, measured: Path) -> None:
    assert str(measured.parent.parent).encode() not in file.read_bytes()


def test_gan_sample_draws_from_a_file_as_from_its_run(file: Path, measured: Path, tmp_path: Path) -> None:
    common = ["--class", "star", "--class", 3, "--num", 2, "--seed", 4, "--truncation", 0.8, "--device", "cpu"]
    for source, out in ((["--run", measured], "run"), (["--checkpoint", file], "file")):
        result = done(call("gan-sample", *source, *common, "--out", tmp_path / out))
    assert "trained on shapes (drawn by this package" in result.output
    assert re.search(r"^FID \(pixels\) +[\d.]+ +[\d.]+\nscores by pixels$", result.output, re.MULTILINE)
    names = sorted(path.relative_to(tmp_path / "run") for path in (tmp_path / "run").rglob("*.png"))
    assert {path.parts[0] for path in names} == {"star", "crescent"}
    for name in names:
        one, other = (np.asarray(Image.open(tmp_path / out / name)).astype(int) for out in ("run", "file"))
        assert np.abs(one - other).max() <= 2  # grey levels, by the rounding of the weights


def test_what_the_command_refuses(measured: Path, copied: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = copied("other", *SETTINGS)
    (report,) = (measured / "reports").iterdir()
    done(call("gan-eval", "--run", run, "--metrics", "fid", "--set=eval.ema=false", "--device", "cpu"))
    raw = next((run / "reports").iterdir())
    refused(export("--run", run, "--report", raw, "--out", out), "of raw weights, expected those of ema weights")
    refused(export("--run", run, "--report", run / "nowhere", "--out", out), "not found")
    changed = torch.load(run / "checkpoints" / "step-00000002.pt")
    changed["state"]["step"] = 1
    torch.save(changed, run / "checkpoints" / "step-00000001.pt")
    older = run / "checkpoints" / "step-00000001.pt"
    refused(
        export("--checkpoint", older, "--report", report, "--out", out), "measure that checkpoint by gan-eval first"
    )
    changed["config"]["data"]["name"] = "cifar10"
    torch.save(changed, older)
    refused(export("--checkpoint", older, "--out", out), "--origin: is missing")
    assert not list(tmp_path.glob("out/*"))


def test_a_changed_byte_is_noticed(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    exact = read_generator(file).source.generator.state_dict()
    for position in torch.randint(len(whole), (30,), generator=torch.Generator().manual_seed(0)).tolist():
        changed = bytearray(whole)
        changed[position] ^= 16
        (tmp_path / "changed.safetensors").write_bytes(changed)
        try:
            found = read_generator(tmp_path / "changed.safetensors").source.generator.state_dict()
        except CheckpointError:
            continue
        assert all(torch.equal(tensor, exact[name]) for name, tensor in found.items())  # white space of the header


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def size_of(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as image:
        return image.size


def test_the_demo_writes_a_picture_and_prints_its_scores(empty: Path) -> None:
    result = done(call("gan-sample", "--demo"))
    assert [path.name for path in empty.iterdir()] == ["demo.png"]
    assert size_of(empty / "demo.png") == (8 * 33 + 1, 10 * 33 + 1)  # a class in each row
    picture, about, *scores = result.output.splitlines()
    assert picture == "grid: demo.png"
    assert "trained on upright shapes (drawn by" in about
    assert ["GAN-test", "accuracy", "(classifier)", "0.999", "1"] in [line.split() for line in scores]
    assert len(scores) == 8
    assert "grid: demo-2.png" in done(call("gan-sample", "--demo", "--seed", 1)).output
    assert (empty / "demo.png").read_bytes() != (empty / "demo-2.png").read_bytes()


def test_the_demo_takes_the_options_of_other_sources(empty: Path) -> None:
    done(call("gan-sample", "--demo", "--interpolate", 5, "--num", 3, "--class", "heart"))
    assert size_of(empty / "demo.png") == (5 * 33 + 1, 3 * 33 + 1)
    done(call("gan-sample", "--demo", "--num", 2, "--class", "ring", "--standing-statistics", "--out", "some"))
    assert sorted(path.name for path in (empty / "some" / "ring").iterdir()) == ["000000.png", "000001.png"]
    refused(call("gan-sample", "--demo", "--class", "cat"), "got 'cat'", ", ".join(SHAPES))
    refused(call("gan-sample", "--demo", "--run", empty), "--demo: does not go with")
    refused(call("gan-sample", "--demo", "--raw"), "--raw: ", "holds one generator")


def test_a_demo_that_is_missing_or_damaged_is_one_sentence(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator_file, "DEMO", empty / "demo.safetensors")
    refused(call("gan-sample", "--demo"), "demo.safetensors: no such file; install the package again")
    (empty / "demo.safetensors").write_bytes(DEMO.read_bytes()[:-100])
    refused(call("gan-sample", "--demo"), "it is damaged", "install the package again")
    assert [path.name for path in empty.iterdir()] == ["demo.safetensors"]


def test_the_demo_is_small_and_packaged() -> None:
    assert DEMO.stat().st_size < 2**20
    assert "gan.measuring = *.safetensors" in (ROOT / "setup.cfg").read_text()


def sampled(source: Source, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    latents = draw_latents(count, source.config.generator.z_dim, random_generator(7, "samples"))
    labels = balanced_labels(count, source.num_classes)
    return generate(source.generator, latents, labels, batch_size=100, device="cpu"), labels


@pytest.mark.slow
def test_the_demo_draws_the_shapes_that_it_says() -> None:
    """By a classifier trained here, half a minute: the accuracy in the file is of another one's."""
    from evaluation import Context, Settings, Sources, build_extractor, evaluate
    from gan.build import load_images

    found = read_generator(DEMO)
    train, test = (load_images(found.source.config, split) for split in ("train", "test"))
    images, labels = sampled(found.source, 500)
    context = Context(
        generated=images,
        generated_labels=labels,
        test=test.images,
        test_labels=test.labels,
        extractor=build_extractor("classifier", Sources(images=train.images, labels=train.labels)),
        settings=Settings(num_is=500),
    )
    values = evaluate(["gan_test"], context).values
    (value,) = (value for key, value in values.items() if key.startswith("gan_test/"))
    assert value >= 0.95
