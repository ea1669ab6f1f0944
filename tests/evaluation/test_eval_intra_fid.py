"""Tests of Intra-FID, Intra-KID and per-class precision and recall: uneven and missing classes, recorded fields."""

from dataclasses import replace

import pytest
import torch

from evaluation import (
    Context,
    EvaluationError,
    Settings,
    evaluate,
    frechet_distance_of_features,
    intra_fid,
    intra_kid,
    intra_prdc,
    kid_of_all_pairs,
    prdc,
)


def features(labels: torch.Tensor, dimension: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(labels), dimension, generator=generator, dtype=torch.float64)
    return noise * (1 + labels[:, None]) + 10 * labels[:, None]


LABELS, REAL_LABELS = torch.tensor([0, 1, 2] * 12), torch.tensor([2] * 20 + [0] * 15 + [1] * 4)
FAKE, REAL = features(LABELS, seed=1), features(REAL_LABELS, seed=2)


def test_intra_fid_is_the_distance_within_each_class_and_its_mean():
    mean, distances = intra_fid(FAKE, LABELS, REAL, REAL_LABELS)
    expected = [frechet_distance_of_features(FAKE[LABELS.eq(c)], REAL[REAL_LABELS.eq(c)]) for c in range(3)]
    assert distances.tolist() == pytest.approx(expected, rel=1e-10)
    assert mean == pytest.approx(sum(expected) / 3, rel=1e-10)  # classes count alike, however many images they have


def test_intra_kid_is_the_kid_of_all_pairs_within_each_class():
    found = intra_kid(FAKE, LABELS, REAL, REAL_LABELS)
    expected = [kid_of_all_pairs(FAKE[LABELS.eq(c)], REAL[REAL_LABELS.eq(c)]) for c in range(3)]
    assert found.per_class.tolist() == pytest.approx([estimate.value for estimate in expected], rel=1e-10)
    assert found.mean == pytest.approx(sum(estimate.value for estimate in expected) / 3, rel=1e-10)
    square = sum(estimate.standard_error**2 for estimate in expected)
    assert found.standard_error == pytest.approx(square**0.5 / 3, rel=1e-10)


def test_intra_prdc_is_prdc_within_each_class():
    labels, real_labels = LABELS.clamp(max=1), REAL_LABELS.clamp(min=1) - 1
    found = intra_prdc(FAKE, labels, REAL, real_labels, pr_neighbours=2, dc_neighbours=4)
    for c in range(2):
        sides = {"real": REAL[real_labels.eq(c)], "fake": FAKE[labels.eq(c)]}
        expected = prdc(**sides, pr_neighbours=2, dc_neighbours=4)
        assert {name: float(values[c]) for name, values in found.items()} == {
            name: getattr(expected, name) for name in ("precision", "recall", "f_score", "density", "coverage")
        }
    assert len({tuple(values.tolist()) for values in found.values()}) == 5  # else names could be mixed up unseen


def test_precision_within_classes_sees_what_the_pooled_one_cannot():
    rows, labels = FAKE[LABELS < 2], LABELS[LABELS < 2]
    pooled = prdc(real=rows, fake=rows)
    assert (pooled.precision, pooled.recall) == (1, 1)
    assert intra_prdc(rows, labels, rows, labels)["precision"].tolist() == [1, 1]
    mixed = intra_prdc(rows, 1 - labels, rows, labels)
    assert (mixed["precision"].mean(), mixed["coverage"].mean()) == (0, 0)


def test_a_set_against_itself_is_zero_also_with_fewer_images_than_dimensions():
    labels = torch.arange(40) % 8
    rows = features(labels, dimension=64)
    mean, distances = intra_fid(rows, labels, rows.flip(0), labels.flip(0))
    assert mean < 1e-8
    assert len(distances) == 8


def test_classes_that_are_mixed_up_are_seen():
    """Permuted labels change Intra-FID, not the marginal FID."""
    wrong = (LABELS + 1) % 3
    assert intra_fid(FAKE, wrong, REAL, REAL_LABELS)[0] > 5 * intra_fid(FAKE, LABELS, REAL, REAL_LABELS)[0]
    assert intra_kid(FAKE, wrong, REAL, REAL_LABELS).mean > intra_kid(FAKE, LABELS, REAL, REAL_LABELS).mean


def test_class_numbers_may_have_gaps():
    mean, distances = intra_fid(FAKE, LABELS * 5, REAL, REAL_LABELS * 5)
    assert len(distances) == 3
    assert mean == intra_fid(FAKE, LABELS, REAL, REAL_LABELS)[0]


@pytest.mark.parametrize(
    ("labels", "real_labels", "message"),
    [
        (LABELS.clamp(max=1), REAL_LABELS, "got 0 generated images of class 2"),
        (LABELS, REAL_LABELS.clamp(min=1), "got 0 reference images of class 0"),
        (torch.where(torch.arange(36) == 0, 7, LABELS), REAL_LABELS, "got 1 generated images of class 7"),
        (LABELS[1:], REAL_LABELS, r"got labels \(35,\) for features \(36, 6\)"),
    ],
)
def test_wrong_labels_are_refused(labels: torch.Tensor, real_labels: torch.Tensor, message: str):
    with pytest.raises(EvaluationError, match=f"intra_kid: {message}"):
        intra_kid(FAKE, labels, REAL, real_labels)


def test_a_class_needs_more_images_than_neighbours():
    enough = intra_prdc(FAKE, LABELS, REAL, REAL_LABELS, pr_neighbours=3, dc_neighbours=1)
    assert len(enough["recall"]) == 3
    with pytest.raises(EvaluationError, match="intra_prdc: got 4 reference images of class 1, expected at least 5"):
        intra_prdc(FAKE, LABELS, REAL, REAL_LABELS, pr_neighbours=4, dc_neighbours=1)


@pytest.fixture
def context(pixels, drawn_context) -> Context:
    return drawn_context(
        generated=(50, 1),
        reference=(41, 2),
        extractor=pixels,
        settings=Settings(num_intra=15),
        class_names=("bright", "dark"),
    )


UNEVEN = torch.tensor([1] * 5 + [0] * 20 + [1] * 25)
ROWS = torch.cat([torch.arange(20), torch.arange(25, 35)])  # the first 15 of each class


@pytest.mark.parametrize(("metric", "pure"), [("intra_fid", intra_fid), ("intra_kid", intra_kid)])
def test_the_first_images_of_each_class_meet_all_reference_images_of_it(context: Context, metric: str, pure):
    context = replace(context, generated_labels=UNEVEN)
    fake, real = (context.extractor(images)[0] for images in (context.generated[ROWS], context.reference))
    found = pure(fake, UNEVEN[ROWS], real, context.reference_labels)
    mean, per_class = found[0], found[-1]
    report = evaluate([metric], context)
    key = f"{metric}/pixels"
    assert report.values == {key: pytest.approx(mean, rel=1e-9)}
    entry = report.protocol["values"][key]
    assert (entry["count"], entry["better"]) == (30, "lower")
    assert entry["fields"]["num_generated_per_class"] == [15, 15]
    table = entry["record"]["classes"]
    counts = [(row["class"], row["generated"], row["reference"]) for row in table]
    assert counts == [("bright", 15, 21), ("dark", 15, 20)]
    assert [row["value"] for row in table] == pytest.approx(per_class.tolist(), rel=1e-9)
    assert report.arrays[f"{key}/per_class"] == pytest.approx(per_class.numpy(), rel=1e-9)
    assert report.arrays[f"{key}/classes"].tolist() == [0, 1]
    assert entry["record"]["lowest"] == ("bright" if per_class[0] < per_class[1] else "dark")
    assert entry["record"]["highest"] != entry["record"]["lowest"]


def test_precision_and_recall_of_the_first_images_of_each_class(context: Context):
    context = replace(context, generated_labels=UNEVEN, settings=Settings(num_intra=15, pr_neighbours=2))
    fake, real = (context.extractor(images)[0] for images in (context.generated[ROWS], context.reference))
    found = intra_prdc(fake, UNEVEN[ROWS], real, context.reference_labels, pr_neighbours=2)
    report = evaluate(["intra_prdc"], context)
    assert report.values == {
        f"intra_{name}/pixels": pytest.approx(float(values.mean()), rel=1e-9) for name, values in found.items()
    }
    for name, values in found.items():
        entry = report.protocol["values"][f"intra_{name}/pixels"]
        assert (entry["count"], entry["better"]) == (30, "higher")
        assert entry["fields"]["neighbours"] == (5 if name in ("density", "coverage") else 2)
        assert entry["fields"]["num_generated_per_class"] == [15, 15]
        assert report.arrays[f"intra_{name}/pixels/per_class"] == pytest.approx(values.numpy(), rel=1e-9)
    assert len({entry["hash"] for entry in report.protocol["values"].values()}) == 5


def test_all_generated_images_of_each_class(context: Context):
    report = evaluate(["intra_fid"], replace(context, settings=Settings(num_intra=0)))
    assert report.protocol["values"]["intra_fid/pixels"]["fields"]["num_generated_per_class"] == [25, 25]


def test_hashes_change_with_counts_and_reference_labels(context: Context):
    def digest(**change) -> str:
        return evaluate(["intra_fid"], replace(context, **change)).protocol["values"]["intra_fid/pixels"]["hash"]

    assert digest() == digest(generated=context.generated.flip(0), generated_labels=context.generated_labels.flip(0))
    assert digest() != digest(settings=Settings(num_intra=14))
    assert digest() != digest(reference_labels=1 - context.reference_labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generated_labels": None}, "got generated images without labels"),
        ({"reference_labels": None}, "got reference images without labels"),
        ({"settings": Settings(num_intra=26)}, "got 50 generated images, expected 52"),
        (
            {"generated_labels": torch.tensor([0] * 14 + [1] * 36)},
            "got 14 generated images of class 0, expected at least 15",
        ),
        ({"generated_labels": torch.zeros(50, dtype=torch.int64)}, "got 0 generated images of class 1"),
        ({"generated_labels": torch.arange(50) % 3}, "got 0 reference images of class 2"),
    ],
)
def test_unusable_classes_are_refused_before_any_work(
    context: Context, change: dict, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("evaluation.images.image_set.extract", None)
    for metric in ("intra_fid", "intra_kid", "intra_prdc"):
        with pytest.raises(EvaluationError, match=f"metric {metric}: {message}"):
            evaluate([metric], replace(context, **change))
