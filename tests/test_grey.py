"""Tests of grey images from files with labels.csv to training, samples and metrics."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import call, call_tool, done, refused
from PIL import Image

from evaluation import Context, EvaluationError, evaluate
from evaluation.extractors.pixels import Pixels
from evaluation.images.checks import fingerprint
from evaluation.images.generated import read_generated
from evaluation.images.reader import Resize, read_images
from evaluation.settings import Settings
from gan.data import ImageData, load_images

SMALL = ("num_fid=40", "num_real=60", "lipschitz.pairs=20", "cache=false")
CRITIC = ("nd.steps=2", "nd.num_samples=40", "nd.num_critics=1", "nd.batch_size=8")


def write_zip(place: Path, data: ImageData, count: int, side: int = 32) -> Path:
    """Writes the first images in grey, without a part of their border, to an archive with labels.csv."""
    with zipfile.ZipFile(place, "w") as archive:
        rows = ["file,label"]
        border = (32 - side) // 2
        for row in range(count):
            stream = io.BytesIO()
            pixels = data.images[row].permute(1, 2, 0).numpy()[border : border + side, border : border + side]
            Image.fromarray(pixels).convert("L").save(stream, "PNG")
            archive.writestr(f"{row:03d}.png", stream.getvalue())
            rows.append(f"{row:03d}.png,{data.classes[int(data.labels[row])]}")
        archive.writestr("labels.csv", "\n".join(rows))
    return place


@pytest.fixture(scope="module")
def shapes() -> ImageData:
    return load_images("shapes", root="", split="test", image_size=32, crop=0, resize="none", download=False)


@pytest.fixture(scope="module")
def run(shapes: ImageData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conditional run on 28x28 grey images with a border, beside the archive of its images."""
    folder = tmp_path_factory.mktemp("grey")
    archive = write_zip(folder / "grey.zip", shapes, 80, side=28)
    settings = ("data.name=folder", f"data.root={archive}", "data.channels=1", "data.resize=pad", "conditional=true")
    chosen = [f"--set={setting}" for setting in (*settings, "train.steps=2", "train.sample_every=1", "train.flip=true")]
    result = done(call("gan-train", "--config=smoke", "--device=cpu", f"--run={folder / 'run'}", *chosen))
    assert "grey.zip 32x32, grey" in result.output
    return folder / "run"


def test_sample_grids_are_grey(run: Path) -> None:
    with Image.open(run / "samples" / "step-00000002.png") as picture:
        assert picture.mode == "L"


def test_metrics_of_a_run_and_of_its_samples_as_files(run: Path, tmp_path: Path) -> None:
    """Values of features are those of three equal channels, with equal hashes; critics take one channel."""
    archive = run.parent / "grey.zip"
    settings = [f"--set=eval.{setting}" for setting in (*SMALL, *CRITIC)]
    metrics = "fid,elhist"
    done(
        call(
            "gan-eval",
            f"--run={run}",
            f"--metrics={metrics}",
            "--device=cpu",
            f"--out={tmp_path / 'of_run'}",
            *settings,
        )
    )
    values = json.loads((tmp_path / "of_run" / "report.json").read_text())["values"]
    assert values["fid/pixels"]["record"]["channels"] == "1, repeated to 3 for the extractor"
    histograms = [entry for key, entry in values.items() if key.startswith("elhist")]
    assert histograms
    assert all(entry["fields"]["channels"] == 1 for entry in histograms)
    done(call("gan-sample", f"--run={run}", "--num=40", "--device=cpu", f"--out={tmp_path / 'made'}"))
    files = sorted((tmp_path / "made").glob("*/*.png"))
    assert len(files) == 40
    for file in (*files, tmp_path / "made.png"):
        with Image.open(file) as picture:
            assert picture.mode == "L"
    real = ["--set=eval.resize=pad", "--set=eval.image_size=32", *settings]
    one, other = (
        done(
            call(
                "gan-eval",
                f"--generated={tmp_path / 'made'}",
                *source,
                "--metrics=fid,nd",
                "--device=cpu",
                f"--out={tmp_path / name}",
                *real,
                "--set=eval.extractor=pixels",
                "--set=eval.nd.split=train",
            )
        )
        and json.loads((tmp_path / name / "report.json").read_text())["values"]
        for name, source in (("path", [f"--reference={archive}"]), ("config", [f"--config={run / 'config.yaml'}"]))
    )
    for key in one:
        assert one[key]["value"] == other[key]["value"], key
    assert one["fid/pixels"]["hash"] == other["fid/pixels"]["hash"]


def test_features_and_hashes_of_grey_images_are_those_of_three_equal_channels() -> None:
    """Pixels as features; a set of either kind is compared with a set of either kind."""
    random = torch.Generator().manual_seed(0)
    made, real = (torch.randint(256, (20, 1, 8, 8), generator=random).byte() for _ in range(2))
    settings = Settings(protocol="all", cache=False)
    reports = []
    for fake in (made, made.repeat(1, 3, 1, 1)):
        for reference in (real, real.repeat(1, 3, 1, 1)):
            context = Context(generated=fake, reference=reference, extractor=Pixels(), settings=settings)
            reports.append(evaluate(["fid", "kid", "prdc"], context))
    for report in reports[1:]:
        assert report.values == reports[0].values
        assert [report.protocol["values"][key]["hash"] for key in report.values] == [
            reports[0].protocol["values"][key]["hash"] for key in report.values
        ]
    assert fingerprint(made) == fingerprint(made.repeat(1, 3, 1, 1)) != fingerprint(real)


def test_colours_are_not_compared_with_grey_images_unsaid() -> None:
    context = Context(reference=torch.zeros(4, 1, 8, 8).byte(), settings=Settings(protocol="all"))
    with pytest.raises(EvaluationError, match="generated images are RGB and reference images are grey"):
        context.of(torch.zeros(4, 3, 8, 8).byte())


def test_size_and_channels_of_grey_images_are_advised(tmp_path: Path) -> None:
    np.savez(tmp_path / "digits.npz", images=np.zeros((8, 28, 28), np.uint8))
    given = ("--config=smoke", "--set=data.name=folder", f"--set=data.root={tmp_path / 'digits.npz'}")
    settings = ("--set=data.resize=pad", "--set=train.steps=0", "--device=cpu")
    sized = call("gan-train", *given, "--set=data.image_size=28", "--dry-run")
    refused(
        sized, "got 28, expected 32, 48, 64, 128 or 256; images of another size are scaled to it, or padded, by data"
    )
    for channels, says in ((3, True), (1, False)):
        chosen = f"--set=data.channels={channels}", f"--run={tmp_path / str(channels)}"
        output = done(call("gan-train", *given, *settings, *chosen)).output
        assert ("the images are grey: data.channels=1 would" in output) == says


def test_reports_say_that_only_one_set_has_colours(tmp_path: Path) -> None:
    images = torch.randint(256, (2, 12, 32, 32, 3), generator=torch.Generator().manual_seed(0)).byte()
    sets = {"grey": images[0, ..., :1].repeat(1, 1, 1, 3), "coloured": images[1]}
    for name, pixels in sets.items():
        np.savez(tmp_path / f"{name}.npz", images=pixels.numpy())
    same = ("--metrics=fid", "--device=cpu", "--set=eval.extractor=pixels", "--set=eval.cache=false")
    for made, real, says in (
        ("grey", "coloured", "generated images are grey and real ones in colour"),
        ("coloured", "grey", "generated images are in colour and real ones grey"),
        ("grey", "grey", ""),
    ):
        files = f"--generated={tmp_path / made}.npz", f"--reference={tmp_path / real}.npz"
        output = done(call("gan-eval", *files, f"--out={tmp_path / (made + real)}", *same)).output
        assert says in output
        assert ("real ones" in output) == bool(says)


def test_images_without_colours_have_one_channel_in_every_form(shapes: ImageData, tmp_path: Path) -> None:
    """An archive of grey files, arrays and a packed data set, grey or with equal channels."""
    archive = write_zip(tmp_path / "grey.zip", shapes, 6, side=28)
    grey = read_images(archive).images[:, :1]
    for pixels in (grey[:, 0], grey, grey.permute(0, 2, 3, 1), grey.repeat(1, 3, 1, 1)):
        np.savez(tmp_path / "grey.npz", images=pixels.numpy())
        found = read_generated(tmp_path / "grey.npz", seed=0)
        assert torch.equal(found.images, read_generated(archive, seed=0).images)
        assert found.images.shape == (6, 1, 28, 28)
    padded = read_images(archive, resize=Resize(32, "pad")).images
    assert torch.equal(padded[:, :1, 2:30, 2:30], grey)
    for channels in (1, 3):
        out = tmp_path / f"packed{channels}"
        done(call_tool("prepare_dataset", "--root", archive, "--out", out, "--resize", "pad", "--channels", channels))
        assert torch.equal(read_images(out).images, padded[:, :channels])
    coloured = padded.clone()
    coloured[5, 0, 0, 0] += 1
    np.savez(tmp_path / "coloured.npz", images=coloured.numpy())
    assert read_generated(tmp_path / "coloured.npz", seed=0).images.shape[1] == 3
