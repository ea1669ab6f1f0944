"""Tests of folders as they are: protocol `all`, and statistics that are written and read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from evaluation import EvaluationError, Report, read_statistics
from evaluation.__main__ import main
from evaluation.metrics.inception_score import splits_of


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def measured(out: Path, *arguments: object) -> dict[str, Any]:
    """Values of an evaluation, with their protocols."""
    result = run(*arguments, "--out", out)
    assert result.exit_code == 0, result.output
    report = Report.load(out)
    return {key: {"value": value, **report.protocol["values"][key]} for key, value in report.values.items()}


@pytest.fixture
def folder(tmp_path: Path, drawn):
    """Writes images of a seed into a folder of their number."""

    def write(count: int, seed: int) -> Path:
        place = tmp_path / f"{count}-{seed}"
        place.mkdir()
        for index, image in enumerate(drawn(count, seed=seed)[0]):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(place / f"{index}.png")
        return place

    return write


@pytest.mark.parametrize(("generated", "real"), [(30, 30), (25, 40), (40, 25), (250, 220)])
def test_all_images_of_both_folders_are_the_default(folder, tmp_path: Path, generated: int, real: int):
    """The numbers are in the hash, the floor is beside FID, and KID has subsets that fit."""
    sets = ["--generated", folder(generated, 1), "--reference", folder(real, 2), "--extractor", "pixels"]
    values = measured(tmp_path / "out", *sets, "--metrics", "fid,kid,prdc")
    assert {"fid/pixels", "fid_floor/pixels", "kid/pixels", "kid_all_pairs/pixels", "recall/pixels"} <= values.keys()
    fields = values["fid/pixels"]["fields"]
    assert (fields["num_generated"], fields["num_reference"]) == (generated, real)
    assert values["kid/pixels"]["fields"]["subset_size"] == min(generated, real) // 2
    assert values["kid/pixels"]["std"] > 0
    note = f"{generated} generated images are compared with {real} reference images: FID, precision"
    for key in ("fid/pixels", "precision/pixels"):
        assert (note in values[key]["record"].get("note", "")) == (generated != real)
    assert f"{real} images" in values["fid/pixels"]["record"]["reference"]
    fewer = measured(tmp_path / "out", *sets, "--metrics", "fid", "--num-fid", 20)
    assert fewer["fid/pixels"]["hash"] != values["fid/pixels"]["hash"]
    refused = run(*sets, "--metrics", "fid", "--protocol", "srn2020")
    assert refused.exit_code == 2
    assert f"got {real} reference images, expected 10000" in refused.output or "expected 5000" in refused.output


def test_inception_score_of_a_folder_has_a_split_for_5000_images(folder, tmp_path: Path, monkeypatch):
    assert [splits_of(count) for count in (1, 40, 9_999, 10_000, 50_000, 10**6)] == [1, 1, 1, 2, 10, 10]
    monkeypatch.setattr("evaluation.folders.Sources", lambda **given: _short(given))
    labelled = tmp_path / "classes"
    for label in "ab":
        (labelled / label).mkdir(parents=True)
        for index, file in enumerate(sorted(folder(12, ord(label)).iterdir())):
            file.rename(labelled / label / f"{index}.png")
    sets = ["--generated", labelled, "--reference", labelled, "--extractor", "classifier", "--no-cache"]
    values = measured(tmp_path / "out", *sets, "--metrics", "is,intra_fid")
    (score,) = (entry for key, entry in values.items() if key.startswith("is/"))
    assert (score["count"], score["fields"]["splits"], score["std"]) == (24, 1, None)
    (intra,) = (entry for key, entry in values.items() if key.startswith("intra_fid/"))
    assert intra["fields"]["num_generated_per_class"] == [12, 12]
    refused = run(*sets, "--metrics", "is", "--splits", 30)
    assert refused.exit_code == 2, refused.output


def _short(given: dict[str, Any]) -> Any:
    from evaluation import Sources

    return Sources(**given, classifier_steps=2)


@pytest.mark.parametrize("count", [40, 250])
def test_written_statistics_give_the_value_and_the_hash_of_their_images(folder, tmp_path: Path, count: int):
    """With fewer and with more images than dimensions."""
    generated, real, file = folder(60, 1), folder(count, 2), tmp_path / "real.npz"
    written = run("--reference", real, "--extractor", "pixels", "--write-statistics", file)
    assert written.exit_code == 0, written.output
    assert f"{file}: statistics of {count} images ({real}, {count} images) by extractor pixels" in written.output
    measure = ["--generated", generated, "--extractor", "pixels", "--metrics", "fid"]
    images = measured(tmp_path / "a", *measure, "--reference", real)["fid/pixels"]
    statistics = measured(tmp_path / "b", *measure, "--reference", file)["fid/pixels"]
    assert statistics["value"] == pytest.approx(images["value"], rel=1e-9, abs=0)
    assert statistics["hash"] == images["hash"]
    assert "do not record" not in str(statistics["record"])
    assert f"{real}, {count} images, by statistics from real.npz" == statistics["record"]["reference"]
    with np.load(file) as archive:  # as pytorch-fid and clean-fid read it
        mu, sigma = archive["mu"][:], archive["sigma"][:]
    assert (mu.shape, sigma.shape, mu.dtype, sigma.dtype) == ((192,), (192, 192), np.float64, np.float64)
    np.savez(tmp_path / "plain.npz", mu=mu, sigma=sigma)
    plain = measured(tmp_path / "c", *measure, "--reference", tmp_path / "plain.npz")["fid/pixels"]
    assert plain["value"] == pytest.approx(images["value"], rel=1e-4)
    assert plain["hash"] != images["hash"]


def test_statistics_that_do_not_fit_are_refused_before_anything_is_measured(folder, tmp_path: Path):
    real, file = folder(40, 2), tmp_path / "real.npz"
    sets = ["--reference", real, "--extractor", "pixels"]
    assert run(*sets, "--write-statistics", file, "--num-real", 30).exit_code == 0
    measure = ["--generated", folder(40, 1), "--reference", file, "--metrics", "fid", "--extractor"]
    with np.load(file) as archive:
        arrays = dict(archive)
    np.savez(tmp_path / "changed.npz", **{**arrays, "mu": arrays["mu"] + 1e-9})
    larger = tmp_path / "larger"
    larger.mkdir()
    for index in range(3):
        Image.fromarray(np.full((64, 64, 3), index, np.uint8)).save(larger / f"{index}.png")
    for arguments, message in [
        ([*measure, "resnet"], "got statistics of extractor pixels, expected those of resnet20"),
        ([*measure, "pixels", "--num-real", 40], "got statistics of 30 images, expected 40; set num_real to 30 or 0"),
        (["--generated", larger, *measure[2:], "pixels"], "got statistics of images of 32x32, expected 64x64"),
        (
            [*measure[:3], tmp_path / "changed.npz", *measure[4:], "pixels"],
            "changed.npz: was changed after it was written",
        ),
        ([*sets, "--write-statistics", file, "--num-real", 41], "got 40 reference images, expected 41"),
        ([*sets[:3], "pixels,resnet", "--write-statistics", file], "got extractors pixels, resnet,"),
        (["--reference", file, *sets[2:], "--write-statistics", file], "got statistics as the reference"),
        ([*measure, "pixels", "--write-statistics", file], "--write-statistics: needs --reference, and no --generated"),
        (sets, "--generated: missing"),
    ]:
        result = run(*arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert message in result.output, result.output
    assert measured(tmp_path / "out", *measure, "pixels", "--num-real", 30)["fid/pixels"]["value"] > 0
    assert read_statistics(file).origin.num_images == 30


def test_the_advice_for_a_single_image_fits_a_folder_and_a_number(folder, tmp_path: Path):
    one, several = folder(1, 0), folder(4, 1)
    options = ["--extractor", "pixels", "--metrics", "fid"]
    written = ["--extractor", "pixels", "--write-statistics", tmp_path / "x.npz"]
    for arguments, message in [
        (["--generated", one, "--reference", several, *options], "got 1 generated image, "),
        (["--generated", several, "--reference", one, *options], "got 1 reference image, "),
        (["--reference", one, *written], "got 1 reference image, "),
    ]:
        result = run(*arguments)
        assert message in result.output
        assert result.output.endswith("as a covariance needs; give more\n")
    for arguments, setting in [
        (["--generated", several, "--reference", several, *options, "--num-fid", 1], "num_fid"),
        (["--generated", several, "--reference", several, *options, "--num-real", 1], "num_real"),
        (["--reference", several, *written, "--num-real", 1], "num_real"),
    ]:
        assert f"as a covariance needs; raise {setting}, which is 1\n" in run(*arguments).output


def test_a_damaged_origin_is_one_sentence(folder, tmp_path: Path):
    file = tmp_path / "real.npz"
    assert run("--reference", folder(40, 2), "--extractor", "pixels", "--write-statistics", file).exit_code == 0
    with np.load(file) as archive:
        arrays = dict(archive)
    for origin in ("", "[]", "7", "{}", '{"format": 1}', str(arrays["origin"]).replace("40", '"x"')):
        np.savez(file, **{**arrays, "origin": np.array(origin)})
        with pytest.raises(EvaluationError, match="was changed after it was written"):
            read_statistics(file)
