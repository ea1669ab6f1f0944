"""Tests of python -m evaluation: without gan installed, on folders, and on wrong input."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from evaluation import Report, Sources
from evaluation.__main__ import main

ROOT = Path(__file__).parents[2]
ALL = ["--num-real", "all", "--num-fid", "all", "--num-is", "all", "--splits", "2"]


@pytest.fixture
def folders(tmp_path: Path, drawn) -> tuple[Path, Path]:
    """Generated images in class sub-folders, and real images with labels in an .npz file."""
    images, labels = drawn(20, seed=40)
    for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        file = tmp_path / "generated" / str(label) / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file)
    images, labels = drawn(30, seed=41)
    np.savez(tmp_path / "real.npz", images=images.permute(0, 2, 3, 1).numpy(), labels=labels.numpy())
    return tmp_path / "generated", tmp_path / "real.npz"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_it_works_where_gan_cannot_be_imported(folders: tuple[Path, Path], tmp_path: Path):
    code = (
        "import sys; sys.modules['gan'] = None\n"
        "import runpy; sys.argv[0] = 'evaluation'; runpy.run_module('evaluation', run_name='__main__', alter_sys=True)"
    )
    generated, reference = folders
    arguments = ["--generated", generated, "--reference", reference, "--metrics", "fid,kid,prdc"]
    arguments += ["--extractor", "pixels", "--set", "kid_subset_size=10"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments), *ALL, "--out", str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "FID (pixels)" in done.stdout
    assert Report.load(tmp_path / "out").values["fid/pixels"] > 0


def test_all_metrics_of_folders(folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("evaluation.folders.Sources", partial(Sources, classifier_steps=3))
    generated, reference = folders
    sets = ["--generated", generated, "--reference", reference, "--test", reference]
    more = ["--metrics", "fid, is,nd,intra_fid,kid", "--extractor", "classifier", "--nd-steps", 2, "--nd-critics", 1]
    more += ["--set", "num_intra=10", "--set", "kid_subset_size=10", "--set", "nd.holdout=0.1"]
    result = run(*sets, *more, *ALL, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    names = {key.split("/")[0] for key in Report.load(tmp_path / "out").values}
    assert names == {"fid", "fid_floor", "is", "nd_short", "intra_fid", "kid", "kid_all_pairs"}
    assert (tmp_path / "out" / "samples.png").is_file()


def test_generated_images_are_permuted(folders: tuple[Path, Path], tmp_path: Path):
    generated, reference = folders
    sets = ["--generated", generated, "--reference", reference, "--metrics", "fid", "--extractor", "pixels"]
    values = []
    for seed in (0, 0, 1):
        result = run(*sets, "--num-real", 30, "--num-fid", 10, "--seed", seed, "--out", tmp_path / "out")
        assert result.exit_code == 0, result.output
        values.append(Report.load(tmp_path / "out").values["fid/pixels"])
    assert values[0] == values[1] != values[2]


def write_classes(folder: Path, images: torch.Tensor, classes: dict[str, int]) -> Path:
    """Writes images of class `classes[name]` to sub-folder `name`; 0 is bright on dark, 1 dark on bright."""
    for name, kind in classes.items():
        (folder / name).mkdir(parents=True)
        for index, image in enumerate(images[kind::2]):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / name / f"{index}.png")
    return folder


def test_classes_are_matched_by_name(tmp_path: Path, drawn):
    """Folder "dog" is the first of one side and the second of the other, so positions would mix up the classes."""
    reference = write_classes(tmp_path / "reference", drawn(40, seed=41)[0], {"cat": 0, "dog": 1})
    same = write_classes(tmp_path / "same", drawn(40, seed=42)[0], {"cat": 0, "dog": 1})
    wrong = write_classes(tmp_path / "wrong", drawn(40, seed=42)[0], {"cat": 1, "dog": 0})
    unknown = write_classes(tmp_path / "unknown", drawn(40, seed=42)[0], {"bird": 0, "dog": 1})
    images, labels = drawn(40, seed=41)
    pixels = images.permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "real.npz", images=pixels, labels=1 - labels.numpy(), class_names=np.array(["dog", "cat"]))
    measure = ["--metrics", "intra_fid", "--extractor", "pixels", "--set", "num_intra=20", "--out", tmp_path / "out"]

    def intra_fid(generated: Path, real: Path) -> float:
        result = run("--generated", generated, "--reference", real, *measure)
        assert result.exit_code == 0, result.output
        return Report.load(tmp_path / "out").values["intra_fid/pixels"]

    right = intra_fid(same, reference)
    assert 10 * right < intra_fid(wrong, reference)
    assert intra_fid(same, tmp_path / "real.npz") == pytest.approx(right)
    assert Report.load(tmp_path / "out").protocol["class_names"] == ["dog", "cat"]
    refused = run("--generated", unknown, "--reference", reference, *measure)
    assert refused.exit_code == 2
    assert f"error: {unknown}: got images of class 'bird', but the reference has the classes cat, dog" in refused.output
    plain = ["--metrics", "fid", "--extractor", "pixels", *ALL]
    done = run("--generated", unknown, "--reference", reference, *plain)
    assert done.exit_code == 0, done.output  # sub-folders need not be classes
    refused = run("--generated", same, "--reference", reference, "--test", unknown, *measure)
    assert refused.exit_code == 2
    assert f"error: {unknown}: got images of class 'bird'" in refused.output


def test_wrong_input_is_one_sentence_and_exit_code_2(folders: tuple[Path, Path], tmp_path: Path):
    generated, reference = folders
    sets = ["--generated", generated, "--reference", reference, "--extractor", "pixels"]
    (tmp_path / "weights.pth").write_text("no weights")
    for arguments, message in [
        ([*sets, "--metrics", "fdi"], "did you mean fid?"),
        ([*sets, "--metrics", "fid,elhist"], "metric elhist: needs a discriminator"),
        ([*sets, "--metrics", "fid", "--protocol", "srn2020"], "expected 5000"),
        ([*sets, "--metrics", "is", *ALL], "no class probabilities"),
        ([*sets, "--metrics", "nd"], "got no test images"),
        (["--generated", tmp_path / "nowhere", *sets[2:]], "not found"),
        ([*sets[:2], "--metrics", "fid", "--extractor", "pixels", *ALL], "got no reference images"),
        ([*sets[:4], "--metrics", "fid", "--inception-weights", tmp_path / "weights.pth", *ALL], "does not hold"),
        ([*sets, "--device", "tpu9"], "--device: got 'tpu9'"),
        ([*sets, "--device", "cuda:99"], "--device: got cuda:99"),
        ([*sets, "--num-fid", "-3"], "num_fid: got '-3', expected greater than or equal to 0"),
        ([*sets, "--set", "kid_subset_size=x"], "kid_subset_size: got 'x', expected a valid integer"),
        ([*sets, "--set", "floor=perhaps"], "floor: got 'perhaps', expected a valid boolean"),
        ([*sets, "--set", "nothing=1"], "got 'nothing=1', expected NAME=VALUE with a name from metrics, extractor"),
        ([*sets, "--set", "kid_subset_size"], "--set: got 'kid_subset_size', expected NAME=VALUE"),
        ([*sets, "--set", "nd.preset=x"], "nd.preset: got 'x', expected 'srn2020' or 'gulrajani2019'"),
    ]:
        result = run(*arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert message in result.output
        assert "Traceback" not in result.output


def test_help_has_worked_examples():
    result = run("--help")
    assert result.exit_code == 0
    assert result.output.count("python -m evaluation --") == 5
    assert "elhist" not in result.output  # there is no discriminator here


def test_statistics_stand_for_reference_images(folders: tuple[Path, Path], tmp_path: Path):
    generated, _ = folders
    np.savez(tmp_path / "statistics.npz", mu=np.zeros(192), sigma=np.eye(192))
    sets = ["--generated", generated, "--reference", tmp_path / "statistics.npz", "--extractor", "pixels", *ALL]
    result = run(*sets, "--metrics", "fid", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "reference_statistics" in Report.load(tmp_path / "out").protocol["values"]["fid/pixels"]["fields"]
    refused = run(*sets, "--metrics", "kid")
    assert refused.exit_code == 2
    assert "metric kid: got no reference images" in refused.output


def test_images_win_over_statistics_unless_these_are_asked_for(folders: tuple[Path, Path], tmp_path: Path, drawn):
    """ADM publishes images and statistics in one file; every metric must use the same reference."""
    generated, real = folders
    pixels = drawn(30, seed=41)[0].permute(0, 2, 3, 1).numpy()
    both = tmp_path / "both.npz"
    np.savez(both, arr_0=pixels, mu=np.zeros(192), sigma=np.eye(192))
    measure = ["--generated", generated, "--extractor", "pixels", "--metrics", "fid,kid", *ALL]
    measure += ["--set", "kid_subset_size=10", "--out", tmp_path / "out"]

    def entries(*reference: object) -> dict:
        result = run(*measure, *reference)
        assert result.exit_code == 0, result.output
        assert ("note: the reference is statistics" in result.output) == ("--reference-statistics" in reference)
        return Report.load(tmp_path / "out").protocol["values"]

    plain, images = entries("--reference", real), entries("--reference", both)
    asked = entries("--reference", real, "--reference-statistics", both)
    for key in ("fid/pixels", "kid/pixels"):
        assert images[key]["hash"] == plain[key]["hash"]
    assert asked["kid/pixels"]["hash"] == plain["kid/pixels"]["hash"]
    assert "reference_statistics" in asked["fid/pixels"]["fields"]
