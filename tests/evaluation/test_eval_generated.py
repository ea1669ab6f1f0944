"""Tests of generated images from files: shuffled by the seed, with classes matched by name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation import EvaluationError
from evaluation.images.generated import match_classes, name_classes, read_generated


def save(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (value, value, value)).save(path)


def test_the_order_is_a_permutation_drawn_by_the_seed_and_labels_follow(tmp_path: Path):
    for value in range(20):
        save(tmp_path / ("cat" if value < 10 else "dog") / f"{value:02d}.png", value)
    orders = []
    for seed in (0, 0, 1):
        generated = read_generated(tmp_path, seed=seed)
        values = generated.images[:, 0, 0, 0].tolist()
        assert sorted(values) == list(range(20)) != values
        assert generated.labels is not None
        assert generated.labels.tolist() == [int(value >= 10) for value in values]
        assert generated.class_names == ("cat", "dog")
        assert generated.protocol == {"source": "image files", "seed": seed}
        orders.append(values)
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize(
    ("labels", "names", "known", "expected"),
    [
        ([0, 1, 1], ("cat", "dog"), ("dog", "bird", "cat"), [2, 0, 0]),
        ([0, 1, 2], ("1", "10", "2"), ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"), [1, 10, 2]),
        ([0, 2, 1], (), ("ring", "circle", "star"), [0, 2, 1]),  # numbers stay
        ([1, 2, 10], (), ("1", "10", "2"), [0, 2, 1]),  # unless the classes are called by numbers
        ([0, 1], ("cat", "dog"), (), [0, 1]),
        ([0, 0], ("cat", "dog"), ("bird", "cat"), [1, 1]),  # a class without images need not be known
    ],
)
def test_classes_are_matched_by_name(labels: list[int], names: tuple[str, ...], known: tuple[str, ...], expected: list):
    matched = match_classes(torch.tensor(labels), names, known, "gen")
    assert matched is not None
    assert matched.tolist() == expected


@pytest.mark.parametrize(
    ("names", "known", "got"),
    [
        (("cat", "dog"), ("bird", "cat"), "dog"),
        (("0", "1"), ("bird", "cat"), "0"),  # a folder's name is a name
        ((), ("cat",), "1"),
        ((), ("1", "2"), "0"),
    ],
)
def test_an_unknown_class_is_refused_by_name(names: tuple[str, ...], known: tuple[str, ...], got: str):
    with pytest.raises(EvaluationError, match=f"^gen: got images of class '{got}', but .* classes {', '.join(known)};"):
        match_classes(torch.tensor([0, 1]), names, known, "gen")


def test_classes_without_names_are_called_by_their_numbers():
    assert name_classes(torch.tensor([0, 2]), ()) == ("0", "1", "2")
    assert name_classes(torch.tensor([0, 1]), ("cat", "dog")) == ("cat", "dog")
    assert name_classes(None, ()) == ()


def test_class_names_of_an_npz_file(tmp_path: Path):
    pixels = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.array([1, 0]), class_names=np.array(["dog", "cat"]))
    assert read_generated(tmp_path / "a.npz", seed=0).class_names == ("dog", "cat")
    for names in (["dog"], ["dog", "dog"], [0, 1]):
        np.savez(tmp_path / "a.npz", images=pixels, labels=np.array([1, 0]), class_names=np.array(names))
        with pytest.raises(EvaluationError, match="got class_names"):
            read_generated(tmp_path / "a.npz", seed=0)
