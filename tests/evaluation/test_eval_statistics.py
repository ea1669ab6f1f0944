"""Tests of published reference statistics in place of reference images."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from settings_with import settings_with

from evaluation import Context, EvaluationError, Moments, Settings, evaluate, read_statistics
from evaluation.images.image_set import ImageSet, Pass

SETTINGS = Settings(num_real=80, num_fid=60)


@pytest.fixture
def moments(drawn, pixels) -> Moments:
    return Moments.of(ImageSet(drawn(80, seed=1)[0]).features(80, pixels, Pass(50, "cpu")).features)


@pytest.fixture
def file(tmp_path: Path, moments: Moments) -> Path:
    """Statistics file in the form of pytorch-fid and clean-fid."""
    np.savez(tmp_path / "reference.npz", mu=moments.mean.numpy(), sigma=moments.covariance.numpy())
    return tmp_path / "reference.npz"


def test_fid_against_statistics_equals_fid_against_their_images(file: Path, drawn, pixels):
    generated = drawn(60, seed=2)[0]
    images = Context(generated=generated, reference=drawn(80, seed=1)[0], extractor=pixels, settings=SETTINGS)
    from_images = evaluate(["fid"], images)
    statistics = Context(generated=generated, statistics=read_statistics(file), extractor=pixels, settings=SETTINGS)
    from_file = evaluate(["fid"], statistics)
    assert from_file.values["fid/pixels"] == pytest.approx(from_images.values["fid/pixels"], rel=1e-6)
    fields = from_file.protocol["values"]["fid/pixels"]["fields"]
    assert fields["reference_statistics"] == read_statistics(file).sha256
    assert "num_reference" not in fields


def test_arrays_beside_mu_and_sigma_are_ignored(file: Path, moments: Moments):
    others = {"mu_s": np.zeros(3), "sigma_s": np.eye(3), "arr_0": np.zeros((2, 4, 4, 3), dtype=np.uint8)}
    np.savez(file, mu=moments.mean.numpy(), sigma=moments.covariance.numpy(), **others)
    assert torch.equal(read_statistics(file).moments.mean, moments.mean)


def test_the_hash_is_of_the_numbers(file: Path, moments: Moments, tmp_path: Path):
    np.savez_compressed(tmp_path / "again.npz", sigma=moments.covariance.numpy(), mu=moments.mean.numpy())
    np.savez(tmp_path / "other.npz", mu=moments.mean.numpy() + 1, sigma=moments.covariance.numpy())
    assert read_statistics(tmp_path / "again.npz").sha256 == read_statistics(file).sha256
    assert read_statistics(tmp_path / "other.npz").sha256 != read_statistics(file).sha256


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(3)}, "got arrays mu, expected mu and sigma"),
        ({"mu": np.zeros(3), "sigma": np.eye(4)}, r"sigma float64 \(4, 4\), expected floats mu \(D,\)"),
        ({"mu": np.zeros(3, dtype=np.int64), "sigma": np.eye(3)}, "got mu int64"),
        ({"mu": np.full(3, np.nan), "sigma": np.eye(3)}, "not finite"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 0.5], [0.1, 1.0]])}, "not a covariance"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 2.0], [2.0, 1.0]])}, "eigenvalues from -1 to 3, expected none"),
        ({"mu": np.zeros(2), "sigma": np.diag([1.0, -2e-6])}, "eigenvalues from -2e-06 to 1"),
        ({"mu": np.zeros(3, dtype=complex), "sigma": np.eye(3)}, "got mu complex128"),
        ({"mu": np.zeros(3), "sigma": np.full((3, 3), np.inf)}, "not finite"),
        ({"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, "expected floats mu"),
        ({"mu": np.zeros(3), "sigma": np.array([[print] * 3] * 3, dtype=object)}, "cannot be read"),
    ],
)
def test_what_is_no_statistics_is_refused(tmp_path: Path, arrays: dict, message: str):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(EvaluationError, match=message):
        read_statistics(tmp_path / "bad.npz")


@pytest.mark.parametrize("sigma", [np.zeros((2, 2)), np.diag([1.0, -5e-7]), np.ones((2, 2), dtype=np.float32)])
def test_a_singular_covariance_is_accepted_with_its_rounding(tmp_path: Path, sigma: np.ndarray):
    np.savez(tmp_path / "flat.npz", mu=np.zeros(2), sigma=sigma)
    assert np.array_equal(read_statistics(tmp_path / "flat.npz").moments.covariance, sigma)


def test_a_pickle_is_refused_with_a_way_out(tmp_path: Path):
    """NumPy's own message advises an argument that no command has."""
    (tmp_path / "edm.pkl").write_bytes(pickle.dumps({"mu": np.zeros(3), "sigma": np.eye(3)}))
    np.savez(tmp_path / "objects.npz", mu=np.array([None]), sigma=np.eye(3))
    for name in ("edm.pkl", "objects.npz"):
        with pytest.raises(EvaluationError, match=r"holds a pickle, .*; save its arrays with numpy\.savez"):
            read_statistics(tmp_path / name)


def test_a_missing_and_a_damaged_file_are_refused(tmp_path: Path):
    (tmp_path / "damaged.npz").write_bytes(b"PK nothing")
    for name in ("missing.npz", "damaged.npz"):
        with pytest.raises(EvaluationError, match=f"{name}: cannot be read"):
            read_statistics(tmp_path / name)


@pytest.mark.parametrize("metric", ["fid", "fid_infinity"])
def test_statistics_of_another_extractor_are_refused(tmp_path: Path, drawn, pixels, metric: str):
    np.savez(tmp_path / "small.npz", mu=np.zeros(3), sigma=np.eye(3))
    context = Context(
        generated=drawn(60, seed=2)[0],
        statistics=read_statistics(tmp_path / "small.npz"),
        extractor=pixels,
        settings=settings_with(SETTINGS, num_fid=60),
    )
    with pytest.raises(EvaluationError, match=r"^small\.npz: got statistics of 3 features, but .* pixels has 192"):
        evaluate([metric], context)


@pytest.mark.parametrize("metric", ["fid", "fid_infinity"])
def test_a_note_says_that_statistics_stand_for_the_images(file: Path, drawn, pixels, metric: str):
    images = Context(
        generated=drawn(60, seed=2)[0],
        reference=drawn(80, seed=1)[0],
        reference_name="drawn",
        extractor=pixels,
        settings=SETTINGS,
    )
    records = [
        evaluate([metric], context).protocol["values"][f"{metric}/pixels"]["record"]
        for context in (images, replace(images, statistics=read_statistics(file)))
    ]
    assert "statistics" not in records[0].get("note", "")
    assert [record["reference"] for record in records] == ["drawn", "reference.npz"]
    assert "statistics from reference.npz" in records[1]["note"]
