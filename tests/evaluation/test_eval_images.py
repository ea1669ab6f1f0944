"""Tests of images and labels from folders and .npz files: order, formats, errors, fingerprints."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation import EvaluationError
from evaluation.images.checks import fingerprint, to_critic
from evaluation.images.reader import Resize, read_images


def save(path: Path, value: int = 0, size: tuple[int, int] = (8, 6), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode in ("L", "P") else (value,) * len(mode)).save(path)


def test_a_plain_folder_is_read_in_the_order_of_names(tmp_path: Path):
    for value in (2, 0, 1):
        save(tmp_path / f"{value}.png", value)
    (tmp_path / "notes.txt").write_text("not an image")
    images, labels, classes, _ = read_images(tmp_path)
    assert images.shape == (3, 3, 6, 8)
    assert images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert labels is None
    assert classes == ()


def test_class_folders_give_labels(tmp_path: Path):
    save(tmp_path / "dog" / "0.png", 5)
    save(tmp_path / "cat" / "0.png", 7)
    save(tmp_path / "cat" / "1.png", 8)
    (tmp_path / "empty").mkdir()
    images, labels, classes, _ = read_images(tmp_path)
    assert classes == ("cat", "dog")
    assert labels is not None
    assert labels.tolist() == [0, 0, 1]
    assert images[:, 0, 0, 0].tolist() == [7, 8, 5]


def test_grey_palette_and_opaque_images_become_rgb(tmp_path: Path):
    save(tmp_path / "a.png", 9, mode="L")
    Image.new("RGBA", (8, 6), (9, 9, 9, 255)).save(tmp_path / "b.png")
    Image.new("RGB", (8, 6), (9, 9, 9)).convert("P").save(tmp_path / "c.png")
    images, _, _, _ = read_images(tmp_path)
    assert images.shape == (3, 3, 6, 8)
    assert images[:2].unique().tolist() == [9]


def test_mixed_sizes_are_refused_by_name(tmp_path: Path):
    save(tmp_path / "a.png")
    save(tmp_path / "odd.png", size=(4, 4))
    with pytest.raises(
        EvaluationError, match=r"odd\.png: 4x4 pixels, expected 8x6 as in a\.png; .* settings resize and"
    ):
        read_images(tmp_path)
    assert read_images(tmp_path, resize=Resize(4, "box")).images.shape == (2, 3, 4, 4)


@pytest.mark.parametrize("content", [b"", b"no image", b"truncate"])
def test_a_damaged_image_is_refused_by_name(tmp_path: Path, content: bytes):
    save(tmp_path / "a.png")
    if content == b"truncate":
        Image.effect_noise((64, 64), 50).save(tmp_path / "whole.jpg")
        content = (tmp_path / "whole.jpg").read_bytes()[:200]
        (tmp_path / "whole.jpg").unlink()
    (tmp_path / "b.jpg").write_bytes(content)
    with pytest.raises(EvaluationError, match=r"b\.jpg: damaged image"):
        read_images(tmp_path)


def test_empty_mixed_and_missing_folders_are_refused(tmp_path: Path):
    with pytest.raises(EvaluationError, match="no images in"):
        read_images(tmp_path)
    with pytest.raises(EvaluationError, match="not found"):
        read_images(tmp_path / "nowhere")
    save(tmp_path / "a.png")
    save(tmp_path / "cat" / "b.png")
    with pytest.raises(EvaluationError, match="next to class folders"):
        read_images(tmp_path)
    with pytest.raises(EvaluationError, match="neither a folder, a zip nor a tar"):
        read_images(tmp_path / "a.png")


@pytest.mark.parametrize(("names", "channels_last"), [(("images", "labels"), True), (("arr_0", "arr_1"), False)])
def test_npz_files_are_read_in_both_layouts(tmp_path: Path, names: tuple[str, str], channels_last: bool):
    pixels = torch.randint(0, 256, (4, 3, 6, 8), dtype=torch.uint8)
    stored = pixels.permute(0, 2, 3, 1) if channels_last else pixels
    np.savez(tmp_path / "a.npz", **{names[0]: stored.numpy(), names[1]: np.array([0, 2, 1, 0])})
    images, labels, classes, _ = read_images(tmp_path / "a.npz")
    assert torch.equal(images, pixels)
    assert labels is not None
    assert labels.tolist() == [0, 2, 1, 0]
    assert classes == ()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": np.zeros(3)}, "no array named images"),
        ({"images": np.zeros((2, 4, 4, 3))}, "got float64"),
        ({"images": np.zeros((2, 4, 4, 2), dtype=np.uint8)}, "expected uint8"),
        ({"images": np.array([object()])}, "cannot be read"),
        ({"images": np.zeros((2, 4, 4, 3), dtype=np.uint8), "labels": np.zeros(3, dtype=int)}, "got labels"),
        ({"images": np.zeros((2, 4, 4, 3), dtype=np.uint8), "labels": np.array([0, -1])}, "class numbers"),
        ({"images": np.zeros((0, 4, 4, 3), dtype=np.uint8)}, "got none"),
    ],
)
def test_other_npz_files_are_refused(tmp_path: Path, arrays: dict, message: str):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(EvaluationError, match=message):
        read_images(tmp_path / "a.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_npz_file_is_refused(tmp_path: Path, save):
    """With any byte changed, the file is either read or refused with a one-line error."""
    pixels = np.arange(9 * 8 * 8 * 3, dtype=np.uint8).reshape(9, 8, 8, 3)
    save(tmp_path / "a.npz", images=pixels)
    whole = (tmp_path / "a.npz").read_bytes()
    for size in (0, 10, len(whole) // 2):
        (tmp_path / "a.npz").write_bytes(whole[:size])
        with pytest.raises(EvaluationError, match=r"a\.npz: cannot be read"):
            read_images(tmp_path / "a.npz")
    random = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for place in random.integers(0, [200, len(whole), len(whole)]):
            damaged[place] = random.integers(256)
        (tmp_path / "a.npz").write_bytes(damaged)
        with suppress(EvaluationError):
            read_images(tmp_path / "a.npz")


def test_fingerprint_follows_content_alone(drawn):
    images, labels = drawn(6, seed=0)
    assert fingerprint(images) == fingerprint(images.clone(memory_format=torch.channels_last))
    changed = images.clone()
    changed[5, 2, 31, 31] ^= 1
    others = {fingerprint(changed), fingerprint(images, labels), fingerprint(images.flatten(1)), fingerprint(images)}
    assert len(others) == 4


def test_critic_range_is_half_open():
    pixels = torch.tensor([0, 128, 255], dtype=torch.uint8)
    assert to_critic(pixels).tolist() == [-1, 0, 127 / 128]
