"""Tests of extractors: Inception's weights and failures, the classifier's training and cache, pixels."""

import hashlib
import re
import urllib.error
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from evaluation import EXTRACTORS, EvaluationError, Sources, build_extractor
from evaluation.extractors import inception
from evaluation.extractors.classifier import trained_classifier
from evaluation.images.cache import default_folder
from evaluation.images.features import extract


@pytest.fixture
def short(drawn, tmp_path: Path) -> Sources:
    """Settings for a classifier that trains quickly and poorly."""
    images, labels = drawn(40, seed=1)
    return Sources(images=images, labels=labels, cache=tmp_path / "cache", classifier_steps=3)


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Simulates a machine without weights on which downloads fail; returns the path that is searched."""

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.delenv("INCEPTION_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    return tmp_path / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"


def test_an_unknown_extractor_is_refused_with_all_names():
    with pytest.raises(EvaluationError, match=f"got 'vgg', expected one of {', '.join(EXTRACTORS)}"):
        build_extractor("vgg", Sources())


def test_pixels_are_means_of_blocks(pixels):
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    images[1, 2, :4, :4] = 255
    features, logits = pixels(images)
    assert logits is None
    assert features.shape == (2, 192)
    assert features[1, 128] == 1
    assert features.sum() == 1


def test_inception_offline_says_what_to_fetch_and_where_to_put_it(no_weights: Path):
    with pytest.raises(EvaluationError) as caught:
        build_extractor("inception", Sources())
    message = str(caught.value)
    assert "https://github.com/toshas/torch-fidelity/releases/download/" in message
    assert str(no_weights) in message
    assert "--inception-weights" in message
    assert "$INCEPTION_WEIGHTS" in message
    assert "needs no download: resnet" in message
    assert not list(no_weights.parent.glob("*.part"))


class Answer:
    """Response of urlopen that returns its bytes once."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def read(self, _: int) -> bytes:
        content, self.content = self.content, b""
        return content


def test_a_damaged_download_is_refused_and_leaves_nothing(no_weights: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Answer(b"half a file"))
    with pytest.raises(EvaluationError, match=r"download .* is damaged"):
        build_extractor("inception", Sources())
    assert not list(no_weights.parent.iterdir())


def test_a_download_with_the_official_hash_is_kept(no_weights: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Answer(b"weights"))
    monkeypatch.setattr(inception, "OFFICIAL_PREFIX", hashlib.sha256(b"weights").hexdigest()[:8])
    assert inception.find_weights(None) == no_weights
    assert no_weights.read_bytes() == b"weights"


def test_weights_are_looked_for_in_order(no_weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    files = [no_weights, tmp_path / "variable.pth", tmp_path / "option.pth"]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    assert inception.find_weights(None) == files[0]
    monkeypatch.setenv("INCEPTION_WEIGHTS", str(files[1]))
    assert inception.find_weights(None) == files[1]
    assert inception.find_weights(files[2]) == files[2]
    with pytest.raises(EvaluationError, match="no file"):
        inception.find_weights(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("content", ["empty", "tensor", "wrong shapes", "pickle"])
def test_a_file_of_other_weights_is_refused(content: str, tmp_path: Path):
    file = tmp_path / "weights.pth"
    if content == "tensor":
        torch.save(torch.zeros(3), file)
    elif content == "wrong shapes":
        torch.save({"fc.weight": torch.zeros(2, 2)}, file)
    elif content == "pickle":
        torch.save(Sources(), file)
    else:
        file.touch()
    with pytest.raises(EvaluationError, match=r"weights\.pth does not hold torch-fidelity's Inception-v3") as caught:
        build_extractor("inception", Sources(weights=file))
    assert "\n" not in str(caught.value)


def test_only_official_weights_are_called_inception(inception_file: Path, monkeypatch: pytest.MonkeyPatch):
    sha256 = hashlib.sha256(inception_file.read_bytes()).hexdigest()
    state = torch.get_rng_state()
    extractor = build_extractor("inception", Sources(weights=inception_file))
    assert torch.equal(state, torch.get_rng_state())
    assert extractor.name == f"inception-{sha256[:8]}"
    assert extractor.protocol["extractor_weights"] == sha256
    monkeypatch.setattr(inception, "OFFICIAL_PREFIX", sha256[:8])
    assert build_extractor("inception", Sources(weights=inception_file)).name == "inception"


def test_features_do_not_depend_on_the_batch_size(classifier, drawn):
    images, _ = drawn(50, seed=5)
    one, many = (extract(images, classifier, batch_size=size, device="cpu") for size in (7, 50))
    assert one.features.shape == (50, 128)
    assert one.features.dtype == torch.float32
    # float32 sums in another order, relative to features of order 1.
    assert torch.allclose(one.features, many.features, atol=1e-5)
    assert torch.allclose(one.logits, many.logits, atol=1e-4)


def test_features_that_are_not_finite_are_refused(pixels, drawn):
    class Broken:
        name, fingerprint, has_logits, protocol, record = "broken", "", False, {}, {}

        def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, None]:
            return images.flatten(1).float() / 0, None

    with pytest.raises(EvaluationError, match="extractor broken: got features that are not finite"):
        extract(drawn(4, seed=0)[0], Broken(), batch_size=4, device="cpu")


def test_the_classifier_learns(classifier):
    assert classifier.record["test_accuracy"] > 0.95
    assert classifier.name == f"classifier-{classifier.fingerprint[:8]}"
    assert classifier.has_logits


def test_the_classifier_is_read_from_its_cache(short: Sources, monkeypatch: pytest.MonkeyPatch):
    first = trained_classifier(short)
    monkeypatch.setattr("evaluation.extractors.classifier.train_classifier", None)  # training would be a TypeError
    assert trained_classifier(short).fingerprint == first.fingerprint
    assert len(list(short.cache.iterdir())) == 1


def test_the_classifier_is_a_function_of_images_labels_seed_and_steps(short: Sources, tmp_path: Path):
    changes = [
        {"cache": tmp_path / "another"},
        {"images": short.images.flip(3)},
        {"labels": 1 - short.labels},
        {"seed": 1},
        {"classifier_steps": 2},
    ]
    first = trained_classifier(short).fingerprint
    others = [trained_classifier(replace(short, **change)).fingerprint for change in changes]
    assert others[0] == first
    assert len(set(others)) == 5
    assert len(list(short.cache.iterdir())) == 5


def test_the_classifier_is_not_a_function_of_the_number_of_threads(short: Sources, tmp_path: Path):
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(trained_classifier(replace(short, cache=tmp_path / str(count))).fingerprint)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]


@pytest.mark.parametrize("damage", ["empty", "truncated", "foreign", "altered"])
def test_a_damaged_cache_file_is_trained_anew(damage: str, short: Sources):
    first = trained_classifier(short)
    (file,) = short.cache.iterdir()
    stored = torch.load(file, weights_only=True)
    if damage == "altered":
        stored["state"]["head.bias"] += 1
        torch.save(stored, file)
    elif damage == "foreign":
        torch.save([1, 2], file)
    else:
        file.write_bytes(b"" if damage == "empty" else file.read_bytes()[:1000])
    assert trained_classifier(short).fingerprint == first.fingerprint
    assert torch.load(file, weights_only=True)["sha256"] == first.fingerprint


def test_the_classifier_leaves_random_states_alone_and_trains_under_inference_mode(short: Sources, tmp_path: Path):
    first = trained_classifier(short)
    state = torch.get_rng_state()
    with torch.inference_mode():
        again = trained_classifier(replace(short, cache=tmp_path / "another"))
    assert torch.equal(state, torch.get_rng_state())
    assert again.fingerprint == first.fingerprint


def test_the_classifier_takes_larger_images(short: Sources, drawn):
    images, labels = drawn(20, seed=1, side=64)
    assert trained_classifier(replace(short, images=images, labels=labels))(images)[0].shape == (20, 128)


def test_the_classifier_needs_labels_of_two_classes(drawn, tmp_path: Path):
    images, labels = drawn(20, seed=1)
    for sources, message in [
        (Sources(), "got no training images"),
        (Sources(images=images), "got no labels"),
        (Sources(images=images, labels=labels * 0), "got 1 class"),
        (Sources(images=images, labels=labels[:3]), r"expected int64 \(20,\)"),
    ]:
        with pytest.raises(EvaluationError, match=message):
            EXTRACTORS["classifier"](sources)


def test_an_unwritable_cache_is_one_sentence_and_no_end(
    short: Sources, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("")
    extractor = trained_classifier(replace(short, cache=tmp_path / "file"))
    assert re.search(r"cannot write its cache file .* set XDG_CACHE_HOME", capsys.readouterr().err)
    assert extractor(short.images[:2])[0].shape == (2, 128)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "srn-gan"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "srn-gan"


def test_rearranged_inception_computes_what_torch_fidelity_computes(inception_file: Path, drawn):
    images = drawn(6, seed=5)[0]
    layers = ["2048", "logits_unbiased"]
    plain = FeatureExtractorInceptionV3(
        "inception-v3-compat", layers, feature_extractor_weights_path=str(inception_file)
    )
    extractor = build_extractor("inception", Sources(weights=inception_file))
    with torch.inference_mode():
        expected, got = plain(images), extractor(images)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in extractor.network.modules())
    for one, other in zip(expected, got, strict=True):
        assert (one - other).abs().max() < 1e-5 * one.abs().max()
