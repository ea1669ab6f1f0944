"""Tests of evaluate(): torch-fidelity as oracle, protocols and hashes, unchanged inputs, errors."""

import copy
import json
import os
import random
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
from settings_with import settings_with
from torch.utils.data import Dataset

from evaluation import Context, EvaluationError, Report, Settings, Sources, build_extractor, evaluate
from evaluation.reporting.value import Value, protocol_hash
from evaluation.runtime.isolation import isolated

SMALL = Settings(
    num_real=80,
    num_fid=60,
    num_is=90,
    is_splits=3,
    floor=False,
    num_intra=30,
    kid_subsets=5,
    kid_subset_size=40,
    nd={"steps": 2, "num_samples": 64, "batch_size": 8, "num_critics": 2},
)


@pytest.fixture
def context(classifier, drawn_context) -> Context:
    return drawn_context(
        generated=(100, 10),
        reference=(120, 11),
        test=(50, 12),
        test_labels=None,
        extractor=classifier,
        settings=SMALL,
        protocol={"quantizer": "round", "ema": True},
        subject={"checkpoint": "a.pt", "step": 7},
        title="drawn",
    )


class Images(Dataset):
    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]


ORACLE = {
    "is": "inception_score_mean",
    "fid": "frechet_inception_distance",
    "kid": "kernel_inception_distance_mean",
    "precision": "precision",
    "recall": "recall",
    "f_score": "f_score",
}
ORACLE_IMAGES = int(os.environ.get("EVAL_ORACLE_IMAGES", "44"))  # 2000 take half an hour on two cores


def test_inception_metrics_equal_torch_fidelity(inception_file: Path, drawn):
    count = ORACLE_IMAGES
    reference = drawn(count, seed=21)[0]
    noise = torch.randint(0, 100, reference.shape, generator=torch.Generator().manual_seed(5))
    noise[::2] = 0  # images without noise keep precision and recall above 0 at any count
    generated = (drawn(count, seed=20)[0].int() + noise).clamp(max=255).to(torch.uint8)
    extractor = build_extractor("inception", Sources(weights=inception_file))
    subset = min(1000, count // 2)
    settings = Settings(num_real=0, num_fid=0, num_is=0, floor=False, kid_subset_size=subset, batch_size=16)
    report = evaluate(
        ["fid", "is", "kid", "prdc"],
        Context(generated=generated, reference=reference, extractor=extractor, settings=settings),
    )
    expected = torch_fidelity.calculate_metrics(
        input1=Images(generated),
        input2=Images(reference),
        cuda=False,
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        kid_subset_size=subset,
        feature_extractor="inception-v3-compat",
        batch_size=20,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
        feature_extractor_weights_path=str(inception_file),
    )
    assert expected["frechet_inception_distance"] > 1e-2  # else 1e-4 relative would compare rounding
    assert expected["inception_score_mean"] > 1.01
    assert abs(expected["kernel_inception_distance_mean"]) > 1e-3  # their float32 sums err by 1e-7
    assert min(expected["precision"], expected["recall"]) > 0
    for name, theirs in ORACLE.items():
        assert report.values[f"{name}/{extractor.name}"] == pytest.approx(expected[theirs], rel=1e-4), name
    entries = report.protocol["values"]
    assert entries[f"is/{extractor.name}"]["std"] == pytest.approx(expected["inception_score_std"], rel=1e-3)
    assert entries[f"kid/{extractor.name}"]["std"] == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-3)


def test_values_are_named_after_their_extractor(context: Context, classifier):
    report = evaluate(["is", "fid", "nd", "fid"], context)
    assert {f"is/{classifier.name}", f"fid/{classifier.name}", "nd_short/srn2020/softplus_fake"} < set(report.values)
    assert "fid" not in report.values
    entry = report.protocol["values"][f"fid/{classifier.name}"]
    assert (entry["count"], entry["better"], entry["fields"]["num_reference"]) == (60, "lower", 80)
    assert report.protocol["values"][f"is/{classifier.name}"]["std"] >= 0
    assert report.protocol["machine"]["extractors"][0]["test_accuracy"] > 0.9
    assert report.protocol["machine"]["threads"] == torch.get_num_threads()
    official = copy.copy(classifier)
    official.name = "inception"
    assert set(evaluate(["fid"], replace(context, extractor=official)).values) == {"fid"}


def hashes(context: Context) -> dict[str, str]:
    report = evaluate(["fid", "is", "nd"], context)
    return {key.split("/")[0]: entry["hash"] for key, entry in report.protocol["values"].items()}


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"settings": settings_with(SMALL, num_real=79)}, {"fid"}),
        ({"settings": settings_with(SMALL, num_fid=59)}, {"fid"}),
        ({"settings": settings_with(SMALL, num_is=89)}, {"is"}),
        ({"settings": settings_with(SMALL, is_splits=2)}, {"is"}),
        ({"settings": settings_with(SMALL, seed=1)}, {"fid", "nd_short"}),
        ({"settings": settings_with(SMALL, nd__steps=3)}, {"nd_short"}),
        ({"settings": settings_with(SMALL, nd__num_samples=63)}, {"nd_short"}),
        ({"settings": settings_with(SMALL, nd__batch_size=9)}, {"nd_short"}),
        ({"settings": settings_with(SMALL, nd__num_critics=1)}, {"nd_short"}),
        ({"settings": settings_with(SMALL, batch_size=3)}, set()),
        ({"protocol": {"quantizer": "truncate", "ema": True}}, {"fid", "is", "nd_short"}),
        ({"protocol": {"quantizer": "round", "ema": False}}, {"fid", "is", "nd_short"}),
        ({"subject": {"checkpoint": "b.pt", "step": 8}}, set()),
        ({"title": "other", "reference_name": "x/train", "test_name": "x/test"}, set()),
    ],
)
def test_hashes_change_with_exactly_what_decides_the_value(context: Context, change: dict, changed: set):
    before, after = hashes(context), hashes(replace(context, **change))
    assert {name for name in before if before[name] != after[name]} == changed


def test_hashes_change_with_the_images_compared_with_but_not_with_those_evaluated(context: Context, drawn):
    before = hashes(context)
    assert hashes(replace(context, generated=drawn(100, seed=30)[0])) == before
    assert {"fid"} == {
        k for k, v in hashes(replace(context, reference=drawn(120, seed=30)[0])).items() if v != before[k]
    }
    assert {"nd_short"} == {
        k for k, v in hashes(replace(context, test=drawn(50, seed=30)[0])).items() if v != before[k]
    }


def test_hashes_change_with_the_extractor(context: Context, classifier):
    other = copy.copy(classifier)
    other.protocol = {**classifier.protocol, "extractor_weights": "0" * 64}
    before, after = hashes(context), hashes(replace(context, extractor=other))
    assert {name for name in before if before[name] != after[name]} == {"fid", "is"}


def test_a_protocol_that_json_does_not_know_is_refused(context: Context):
    with pytest.raises(EvaluationError, match="protocol of fid"):
        evaluate(["fid"], replace(context, protocol={"ema": object()}))
    with pytest.raises(EvaluationError, match="protocol of x"):
        protocol_hash("x", {"n": float("nan")})


def global_state() -> tuple:
    return (
        torch.get_rng_state().numpy().tobytes(),
        np.random.get_state()[1].tobytes(),  # noqa: NPY002 - the global state is what is watched
        random.getstate(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.cudnn.conv.fp32_precision,
        torch.backends.mkldnn.matmul.fp32_precision,
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.get_num_threads(),
    )


def test_globals_are_left_as_found_and_do_not_decide_values(context: Context):
    plain = evaluate(["fid", "is", "nd"], context)
    fresh = replace(context)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            before = global_state()
            other = evaluate(["fid", "is", "nd"], fresh)
            assert global_state() == before
    finally:
        torch.set_default_dtype(torch.float32)
    assert other.values == plain.values


def test_globals_are_restored_after_an_error():
    before = global_state()

    def disturb() -> None:
        with isolated():
            torch.set_default_dtype(torch.float64)
            torch.rand(3)
            assert torch.backends.cudnn.conv.fp32_precision == "ieee"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        disturb()
    assert global_state() == before


def test_precision_flags_are_restored():
    flags = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [flag.fp32_precision for flag in flags]
    try:
        for flag in flags:
            flag.fp32_precision = "tf32"
        with isolated():
            assert [flag.fp32_precision for flag in flags] == ["ieee", "ieee"]
        assert [flag.fp32_precision for flag in flags] == ["tf32", "tf32"]
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.fp32_precision = value


def test_inputs_are_left_as_found(context: Context):
    before = {name: getattr(context, name).clone() for name in ("generated", "generated_labels", "reference", "test")}
    state = {name: tensor.clone() for name, tensor in context.extractor.network.state_dict().items()}
    evaluate(["fid", "is", "nd"], context)
    assert all(torch.equal(getattr(context, name), tensor) for name, tensor in before.items())
    assert all(torch.equal(context.extractor.network.state_dict()[name], tensor) for name, tensor in state.items())


def test_a_report_holds_real_images_of_all_parts_of_the_data(context: Context):
    """Of each class, or without labels at equal distances: data sets may be sorted by class."""
    assert context.reference is not None
    assert context.reference_labels is not None
    arrays = evaluate(["fid"], context).arrays
    shown = arrays["reference_sample_labels"]
    assert len(shown) == len(arrays["reference_samples"])
    assert set(shown) == set(context.reference_labels.tolist())
    plain = evaluate(["fid"], replace(context, generated_labels=None, reference_labels=None)).arrays
    assert "reference_sample_labels" not in plain
    rows = [row * 120 // 64 for row in range(64)]
    assert np.array_equal(plain["reference_samples"], context.reference[rows])


def test_a_sampler_alone_serves_neural_divergence(context: Context, drawn):
    report = evaluate(["nd"], Context(test=context.test, sampler=drawn, settings=SMALL))
    fields = report.protocol["values"]["nd_short/srn2020/softplus_fake"]["fields"]
    assert (fields["pool"], fields["samples"]) == (None, 64)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["fdi"], "did you mean fid"),
        (["zzz"], "expected one of is, fid, fid_infinity, intra_fid, kid, intra_kid, prdc, intra_prdc, gan_test"),
        ([], "expected a list of names"),
        ("fid", "expected a list of names"),
    ],
)
def test_unknown_metrics_are_refused(context: Context, metrics, message: str):
    with pytest.raises(EvaluationError, match=message):
        evaluate(metrics, context)


@pytest.mark.parametrize(
    ("metric", "change", "message"),
    [
        ("fid", {"settings": Settings()}, "got 100 generated images, expected 5000"),
        ("fid", {"settings": settings_with(SMALL, num_real=121)}, "got 120 reference images, expected 121"),
        ("is", {"settings": Settings()}, "got 100 generated images, expected 50000"),
        ("fid", {"reference": None}, "got no reference images"),
        ("fid", {"generated": None, "generated_labels": None}, "got no generated images"),
        ("nd", {"test": None}, "got no test images"),
        ("nd", {"generated": None, "generated_labels": None}, "got no generated images"),
        ("fid", {"extractor": None}, "got no feature extractor"),
        ("fid_infinity", {"settings": settings_with(SMALL, num_fid=29)}, "got 29 generated images, expected at least"),
        ("kid", {"settings": settings_with(SMALL, kid_subset_size=61)}, "got 60 generated images, expected .* = 61"),
        ("kid", {"settings": settings_with(SMALL, kid_subset_size=81)}, "got 80 reference images"),
        ("prdc", {"settings": settings_with(SMALL, num_fid=5)}, "got 5 generated images, expected more than the 5"),
        ("prdc", {"settings": settings_with(SMALL, num_real=4)}, "got 4 reference images"),
    ],
)
def test_a_context_that_lacks_something_is_refused_before_any_work(
    context: Context, metric: str, change: dict, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("evaluation.images.image_set.extract", None)  # a pass of features would be a TypeError
    with pytest.raises(EvaluationError, match=f"metric {metric}: {message}"):
        evaluate([metric], replace(context, **change))


def test_is_of_an_extractor_without_logits_is_refused(context: Context, pixels):
    with pytest.raises(EvaluationError, match="extractor pixels returns no class probabilities"):
        evaluate(["is"], replace(context, extractor=pixels))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generated": torch.zeros(2, 3, 4, 4)}, "generated images: got dtype float32"),
        ({"generated": torch.zeros(2, 2, 4, 4, dtype=torch.uint8)}, "generated images: got shape"),
        ({"generated": torch.zeros(3, 4, 4, dtype=torch.uint8)}, "generated images: got shape"),
        ({"generated": torch.zeros(0, 3, 4, 4, dtype=torch.uint8)}, "got none"),
        ({"generated": np.zeros((2, 3, 4, 4), dtype=np.uint8)}, "got ndarray"),
        (
            {"reference": torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "reference_labels": None},
            "are 4x4 and generated images are 32x32",
        ),
        ({"generated_labels": torch.zeros(3, dtype=torch.int64)}, r"generated labels: .* expected int64 \(100,\)"),
        ({"generated_labels": torch.zeros(100, dtype=torch.int32)}, "generated labels: got int32"),
    ],
)
def test_unusable_images_are_refused(context: Context, change: dict, message: str):
    with pytest.raises(EvaluationError, match=message):
        replace(context, **change)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_fid": -1}, "num_fid: got -1"),
        ({"num_is": 9}, "is_splits: got None, expected at most num_is = 9, not 10"),
        ({"kid_subsets": 0}, "kid_subsets: got 0"),
        ({"kid_subset_size": 1}, "kid_subset_size: got 1"),
        ({"pr_neighbours": 0}, "pr_neighbours: got 0"),
        ({"dc_neighbours": 0}, "dc_neighbours: got 0"),
        ({"nd": {"preset": "srn"}}, r"nd\.preset: got 'srn'"),
        ({"nd": {"steps": 0}}, r"nd\.steps: got 0"),
        ({"nd": {"holdout": 1.0}}, r"nd\.holdout: got 1\.0"),
        ({"nd": {"pool": 0}}, r"nd\.pool: got 0"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str):
    with pytest.raises(EvaluationError, match=message):
        Settings(**settings)


def test_default_settings_are_the_published_protocol():
    settings = Settings()
    numbers = [settings.number(name) for name in ("num_real", "num_fid", "num_is", "is_splits")]
    assert numbers == [10_000, 5_000, 50_000, 10]
    assert settings.nd.preset == "srn2020"


def test_the_reference_draw_is_seeded_and_without_repeats(context: Context):
    rows = context.image_set("reference").rows(80)
    other = replace(context, settings=settings_with(SMALL, seed=1)).image_set("reference").rows(80)
    assert len(rows.unique()) == 80
    assert not torch.equal(rows, other)
    assert torch.equal(rows, replace(context).image_set("reference").rows(80))


def test_numbers_that_json_does_not_know_survive_saving(tmp_path: Path):
    values = [Value(str(number), number, number, 1, "", {}) for number in (float("nan"), float("inf"), -float("inf"))]
    report = Report.of(values, arrays={}, title="", subject={}, machine={})
    text = (report.save(tmp_path) / "report.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    again = Report.load(tmp_path)
    assert [str(value) for value in again.values.values()] == ["nan", "inf", "-inf"]
    assert "nan" in again.table()


def test_a_report_that_cannot_be_written_is_one_sentence(context: Context, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaluationError, match="cannot be written into"):
        evaluate(["fid"], context).save(tmp_path / "file")


def test_extractors_of_one_name_are_told_apart(context: Context, pixels):
    """Fingerprints distinguish them in hashes and stored features; two of one name at once are refused."""

    class Scaled:
        name, has_logits, protocol, record = "mine", False, {}, {}

        def __init__(self, factor: float) -> None:
            self.factor, self.fingerprint = factor, f"weights-{factor}"

        def __call__(self, images: torch.Tensor):
            return self.factor * pixels(images)[0], None

    first = replace(context, extractor=Scaled(1))
    reports = [evaluate(["fid"], one) for one in (first, first.of(context.generated, extractor=Scaled(3)))]
    assert reports[1].values["fid/mine"] == pytest.approx(9 * reports[0].values["fid/mine"], rel=1e-4)
    hashes = {report.protocol["values"]["fid/mine"]["hash"] for report in reports}
    assert len(hashes) == 2
    with pytest.raises(EvaluationError, match="got mine, mine, expected different names"):
        replace(context, extractor=(Scaled(1), Scaled(3)))


def test_other_images_of_a_context_have_their_own_fingerprint(context: Context, drawn):
    other = drawn(100, seed=99)[0]
    contexts = context, context.of(other), replace(context, generated=other)
    reports = [evaluate(["fid"], one) for one in contexts]
    first, second, third = (report.protocol["subject"]["generated_fingerprint"] for report in reports)
    assert first != second == third


def test_a_context_cannot_be_changed(context: Context):
    with pytest.raises(FrozenInstanceError):
        context.generated = context.test  # type: ignore[misc]
    with pytest.raises(EvaluationError, match="cannot change reference, settings; make a new Context"):
        context.of(context.generated, settings=SMALL, reference=context.test)
