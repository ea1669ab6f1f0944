"""Tests of sampling: labels, truncation, standing statistics and their restoration, paths between latents."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import commands
import numpy as np
import pytest
import torch
from commands import done, refused
from PIL import Image
from torchvision.utils import make_grid

from evaluation.images.reader import read_images
from gan.build import build_state
from gan.config import Config, load_config
from gan.data import ImageData
from gan.data.packed import pack
from gan.data.pixels import captioned, image_grid
from gan.data.shapes import SHAPES
from gan.measuring.gans import Evaluation
from gan.measuring.generator_file import DEMO, read_generator
from gan.measuring.sampling import draw_classes, make_sampler, slerp, standing_statistics
from gan.noise import ClassShares, draw_latents, random_generator
from gan.runs.samples import Samples, write_samples
from gan.training.state import TrainState

DEMO_CLASSES = len(SHAPES)
sample = partial(commands.call, "gan-sample", "--demo", "--device=cpu")


@pytest.fixture
def conditional() -> tuple[Config, TrainState]:
    config = load_config("smoke", ["conditional=true"])
    return config, build_state(config, num_classes=4)


def test_label_policies() -> None:
    assert draw_classes(10, 0, "balanced", 0) is None
    balanced = draw_classes(10, 4, "balanced", 0)
    assert balanced is not None
    assert balanced.bincount().tolist() == [3, 3, 2, 2]
    uniform = draw_classes(4000, 4, "uniform", 0)
    assert uniform is not None
    counts = uniform.bincount()
    assert counts.sum() == 4000
    assert (counts - 1000).abs().max() < 150  # five standard deviations
    assert len(counts.unique()) > 1
    of_data = draw_classes(200, 2, "data", 0, ClassShares(torch.tensor([20, 180])))
    assert of_data is not None
    assert of_data.bincount().tolist() == [20, 180]
    again, other = draw_classes(4000, 4, "uniform", 0), draw_classes(4000, 4, "uniform", 1)
    assert torch.equal(uniform, again)  # type: ignore[arg-type]
    assert not torch.equal(uniform, other)  # type: ignore[arg-type]


class Oracle(torch.nn.Module):
    """A perfect generator: real images of the class asked for, chosen by the latent."""

    def __init__(self, data: ImageData) -> None:
        super().__init__()
        self.data = data
        self.rows = [(data.labels == label).nonzero()[:, 0] for label in range(data.num_classes)]

    def forward(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        numbers = (latents[:, 0].double().abs() * 1e6).long()
        rows = [self.rows[label][number % len(self.rows[label])] for number, label in zip(numbers, labels, strict=True)]
        return self.data.images[torch.stack(rows)].float() / 127.5 - 1


def test_a_perfect_generator_reaches_the_floor_with_the_shares_of_the_data(tmp_path: Path) -> None:
    """90/10 data: balanced labels put the FID of real images far above the floor, which is the FID of real images."""
    random = torch.Generator().manual_seed(0)
    dark = torch.arange(2000) % 10 == 0
    pixels = torch.randint(0, 128, (2000, 3, 32, 32), dtype=torch.uint8, generator=random)
    images = pixels + torch.where(dark, 0, 127).to(torch.uint8)[:, None, None, None]
    data = ImageData(images, (~dark).long(), ("dark", "light"), "folder", "train")
    root = pack({"train": data}, tmp_path / "data", image_size=32, crop=0, resize="none", overwrite=False)
    values = {}
    for labels in ("data", "balanced"):
        settings = [f"eval.{one}" for one in (f"labels={labels}", "num_fid=1000", "num_real=1000", "cache=false")]
        config = load_config("smoke", ["conditional=true", "data.name=folder", f"data.root={root}", *settings])
        state = build_state(config, num_classes=2)
        state.generator = Oracle(data)
        report = Evaluation(config, "cpu").of_state(["fid"], state, {})
        values[labels] = report.values
        generation = report.protocol["values"]["fid/pixels"]["fields"]["generation"]
        counts = {"class_counts": [200, 1800]} if labels == "data" else {}
        assert generation == generation | {"labels": labels} | counts
    assert values["data"]["fid/pixels"] < 2 * values["data"]["fid_floor/pixels"]
    assert values["balanced"]["fid/pixels"] > 20 * values["balanced"]["fid_floor/pixels"]


def test_samples_do_not_depend_on_the_batch_size(conditional: tuple[Config, TrainState]) -> None:
    config, state = conditional
    labels = []
    images = []
    for size in (3, 8):
        changed = config.model_copy(
            update={"eval": config.eval.model_copy(update={"batch_size": size, "labels": "uniform"})}
        )
        made, classes = make_sampler(state.generator, changed, 4, "cpu")(8, 5)
        images.append(made.int())
        labels.append(classes)
    assert torch.equal(*labels)
    assert (images[0] - images[1]).abs().max() <= 1  # rounding of float sums, to 8 bits


def test_standing_statistics_are_those_of_samples_and_are_put_back(conditional: tuple[Config, TrainState]) -> None:
    config, state = conditional
    generator = state.generator
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    modes = [module.training for module in generator.modules()]
    norms = [module for module in generator.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    random = torch.get_rng_state()
    with standing_statistics(generator, config, 4, "cpu"):
        assert [module.training for module in generator.modules()] == modes
        inside = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
        latents, labels = torch.randn(2048, config.generator.z_dim), torch.arange(2048) % 4
        seen: list[torch.Tensor] = []
        hook = norms[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        generator.eval()(latents, labels)
        hook.remove()
        assert norms[0].running_mean is not None
        spread = seen[0].std(dim=(0, 2, 3))
        assert ((seen[0].mean(dim=(0, 2, 3)) - norms[0].running_mean).abs() < 0.1 * spread).all()
    assert any(not torch.equal(inside[name], before[name]) for name in before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())
    assert [norm.momentum for norm in norms] == momenta
    torch.set_rng_state(random)


def test_standing_statistics_are_put_back_after_an_error(conditional: tuple[Config, TrainState]) -> None:
    config, state = conditional
    before = {name: tensor.clone() for name, tensor in state.generator.state_dict().items()}
    with pytest.raises(RuntimeError, match="stop"), standing_statistics(state.generator, config, 4, "cpu"):
        raise RuntimeError("stop")
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.generator.state_dict().items())


def test_truncation_reaches_samples_and_standing_statistics(conditional: tuple[Config, TrainState]) -> None:
    """Checks the largest latent component that the generator receives; without truncation latents are unchanged."""
    config, state = conditional
    seen: list[torch.Tensor] = []
    state.generator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    for bound in (0.0, 0.3):
        changed = config.model_copy(update={"eval": config.eval.model_copy(update={"truncation": bound})})
        with standing_statistics(state.generator, changed, 4, "cpu"):
            make_sampler(state.generator, changed, 4, "cpu")(8, 5)
    largest = [float(latents.abs().max()) for latents in seen]
    assert len(largest) == 2 * 65
    assert min(largest[:65]) > 1
    assert max(largest[65:]) == pytest.approx(0.3, rel=1e-3)
    expected = draw_latents(128, config.generator.z_dim, random_generator(config.eval.seed, "standing statistics"))
    assert torch.equal(seen[0], expected)


def test_slerp_turns_by_equal_angles_and_keeps_the_length() -> None:
    start, end = torch.tensor([[1.0, 0, 0], [0, 2, 0]]), torch.tensor([[0, 1.0, 0], [0, 1, math.sqrt(3)]])
    points = slerp(start, end, 4)
    angles = torch.tensor([0.0, 30, 60, 90]).deg2rad()
    assert torch.allclose(points[0], torch.stack([angles.cos(), angles.sin(), 0 * angles], 1), atol=1e-6)
    assert torch.allclose(points.norm(dim=2), torch.tensor([[1.0] * 4, [2.0] * 4]), atol=1e-6)
    angles = torch.nn.functional.cosine_similarity(points[1, :-1], points[1, 1:], dim=1).acos().rad2deg()
    assert torch.allclose(angles, torch.full((3,), 20.0), atol=1e-3)  # 60 degrees in three steps


def test_slerp_ends_where_it_should() -> None:
    random = torch.Generator().manual_seed(0)
    start, end = torch.randn(5, 16, generator=random), torch.randn(5, 16, generator=random)
    points = slerp(start, end, 7)
    assert points.shape == (5, 7, 16)
    assert points.dtype == torch.float32
    assert torch.equal(points[:, 0], start)
    assert torch.equal(points[:, -1], end)
    assert torch.equal(slerp(start[:2], end[:2], 7), points[:2])


@pytest.mark.parametrize("factor", [1.0, 3.0, -1.0])
def test_slerp_of_parallel_latents_is_the_line(factor: float) -> None:
    start = torch.tensor([[1.0, -2, 3]])
    line = torch.lerp(start, factor * start, torch.linspace(0, 1, 5)[:, None])
    assert torch.allclose(slerp(start, factor * start, 5)[0], line, atol=1e-6)


@pytest.mark.parametrize(("count", "columns"), [(1, 8), (3, 8), (8, 8), (10, 4), (64, 8)])
def test_a_grid_is_that_of_torchvision(count: int, columns: int) -> None:
    images = torch.randint(256, (count, 3, 5, 7), generator=torch.Generator().manual_seed(count), dtype=torch.uint8)
    assert torch.equal(image_grid(images, columns), make_grid(images, nrow=columns, padding=1))


@pytest.mark.parametrize("truncation", [0.0, 0.5])
def test_a_latent_is_a_function_of_its_seed_alone(tmp_path: Path, truncation: float) -> None:
    """Other seeds, their order and the batch size change nothing, and no two seeds have the same latent."""
    source, seen = read_generator(DEMO).source, dict[int, torch.Tensor]()

    def latents_of(seeds: tuple[int, ...], batch_size: int) -> None:
        rows: list[torch.Tensor] = []
        source.generator.register_forward_pre_hook(lambda network, inputs: rows.append(inputs[0]))
        changed = source.config.model_copy(
            update={"eval": source.config.eval.model_copy(update={"batch_size": batch_size})}
        )
        wanted = Samples(1, (), 0, truncation, standing=False, interpolate=None, seeds=seeds)
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        place = torch.device("cpu")
        write_samples(replace(source, config=changed), wanted, place, out=out, kind="grid", say=lambda line: None)
        for seed, latent in zip(seeds, torch.cat(rows), strict=True):
            assert torch.equal(latent, seen.setdefault(seed, latent)), seed

    latents_of(tuple(range(300)), 100)
    latents_of((7, 2**31 - 1, 5, 299), 3)
    latents_of((2**31 - 1,), 1)
    assert len(torch.stack(list(seen.values())).unique(dim=0)) == 301


def test_files_and_classes_are_named_by_seeds(tmp_path: Path) -> None:
    done(sample("--seeds", "0-2,25", "--out", tmp_path / "a"))
    done(sample("--seeds", "2,1", "--class", "star", "--class", "half_disc", "--class", "2", "--out", tmp_path / "b"))
    files = {name: {str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).glob("*/*")} for name in "ab"}
    names = list(SHAPES)
    assert files["a"] == {f"{names[seed % DEMO_CLASSES]}/{seed:06d}.png" for seed in (0, 1, 2, 25)}
    assert files["b"] == {f"{name}/{seed:06d}.png" for name in ("star", "half_disc") for seed in (1, 2)}
    same = [pixels_of(tmp_path / name / "half_disc" / "000002.png") for name in "ab"]
    assert np.abs(same[0] - same[1]).max() <= 1  # another batch size rounds differently
    assert pixels_of(tmp_path / "a.png").shape[0] > 2 * 33 + 1  # two rows of two images, with captions


def pixels_of(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image).astype(int)


def test_a_caption_is_below_its_image_and_changes_no_pixel() -> None:
    images = torch.randint(256, (3, 3, 8, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = captioned(images, ["7", "1234567890", ""])
    left = (found.shape[3] - 12) // 2
    assert torch.equal(found[:, :, :8, left : left + 12], images)
    assert found.shape[3] > 12
    below = found[:, :, 8:]
    assert below[0].any()
    assert below[1].count_nonzero() > 2 * below[0].count_nonzero()
    assert not below[2].any()
    assert captioned(images[:, :1], ["7"] * 3).shape[1] == 1


def test_a_file_for_other_evaluators(tmp_path: Path) -> None:
    """guided-diffusion streams `arr_0` in C order; our reader finds the images and classes of the same PNG files."""
    done(sample("--num", 25, "--format", "npz", "--out", tmp_path / "a.npz"))
    done(sample("--num", 25, "--out", tmp_path / "b"))
    with np.load(tmp_path / "a.npz") as arrays:
        assert {"arr_0", "arr_1", "class_names"} == set(arrays.files)
        assert (arrays["arr_0"].shape, arrays["arr_0"].dtype) == ((25, 32, 32, 3), np.uint8)
        assert arrays["arr_0"].flags.c_contiguous
        assert arrays["arr_1"].tolist() == [*range(10), *range(10), *range(5)]
    file, folder = read_images(tmp_path / "a.npz", "train", None), read_images(tmp_path / "b", "train", None)
    sets = []
    for found in (file, folder):
        assert found.labels is not None
        names = [found.class_names[label] for label in found.labels]
        sets.append({(name, image.numpy().tobytes()) for name, image in zip(names, found.images, strict=True)})
    assert sets[0] == sets[1]
    done(sample("--seeds", "12,3", "--class", "ring", "--format", "npz", "--out", tmp_path / "c"))
    with np.load(tmp_path / "c.npz") as arrays:
        assert (arrays["seeds"].tolist(), arrays["arr_1"].tolist()) == ([12, 3], [1, 1])
    refused(sample("--seeds", "12", "--format", "npz", "--out", tmp_path / "c"), "c.npz: the file exists: choose")
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        refused(sample("--seeds", "12", "--out", out), f"--out {out}: cannot be written (", "choose another folder")


class Grey(torch.nn.Module):
    """A generator of one channel."""

    def __init__(self, colour: torch.nn.Module) -> None:
        super().__init__()
        self.colour = colour

    def forward(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        images: torch.Tensor = self.colour(latents, labels)
        return images.mean(1, keepdim=True)


def test_grey_images_have_three_equal_channels_in_the_file(tmp_path: Path) -> None:
    source = read_generator(DEMO).source
    grey, wanted = replace(source, generator=Grey(source.generator)), Samples(1, (), 0, 0.0, False, None, (3, 4))
    write_samples(grey, wanted, torch.device("cpu"), out=tmp_path / "a", kind="npz", say=lambda line: None)
    with np.load(tmp_path / "a.npz") as arrays:
        images = arrays["arr_0"]
    assert images.shape == (2, 32, 32, 3)
    assert (images == images[..., :1]).all()
    assert images.std() > 0


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--seeds", "0-x"], ["'--seeds': got '0-x', expected whole numbers and ranges"]),
        (["--seeds", "9-0"], ["the smaller seed of a range first"]),
        (["--seeds", "0-9,5"], ["each seed once"]),
        (["--seeds", "0-2000000"], ["at most 1,000,000 seeds"]),
        (["--seeds", "2147483648"], ["seeds up to 2147483647"]),
        (["--seeds", "0-9", "--num", "3"], ["leave out --num and --seed"]),
        (["--seeds", "0-9", "--seed", "0"], ["leave out --num and --seed"]),
        (["--format", "npz", "--grid-only"], ["leave it out for a grid alone"]),
        (["--format", "npz", "--interpolate", "3"], ["leave it out for a grid alone"]),
        (["--out", "a.npz"], ["add --format npz"]),
        (["--out", "."], ["expected the name of a new folder"]),
    ],
)
def test_samples_that_contradict_are_refused(
    arguments: list[str], parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(sample(*arguments), *parts)
    assert not list(tmp_path.iterdir())
