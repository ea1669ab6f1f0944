"""Tests of decoding an image file into a square of uint8 pixels."""

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from evaluation.images.reader.decoding import strict_decoding
from gan.data.framing import RESIZES, Framing, decode, frame
from gan.errors import DataError

PLAIN = Framing(4, 0, "none")


def encode(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_rgb_comes_back_exactly_channels_first() -> None:
    pixels = noise(4, 4, 3)
    assert np.array_equal(decode(encode(Image.fromarray(pixels)), "x.png", PLAIN), pixels.transpose(2, 0, 1))


@given(width=st.integers(1, 40), height=st.integers(1, 40), crop=st.integers(0, 40))
@settings(max_examples=80, deadline=None)
def test_crop_is_the_centred_square(width: int, height: int, crop: int) -> None:
    pixels = noise(height, width, 3)
    side = crop or min(width, height)
    framing = Framing(side, crop, "none")
    if side > min(width, height):
        with pytest.raises(DataError, match=rf"x\.png: {width}x{height} pixels, smaller than data\.crop={crop}"):
            frame(Image.fromarray(pixels), "x.png", framing)
        return
    top, left = (height - side) // 2, (width - side) // 2
    expected = pixels[top : top + side, left : left + side].transpose(2, 0, 1)
    assert np.array_equal(frame(Image.fromarray(pixels), "x.png", framing), expected)


def test_box_halving_is_the_mean_of_four() -> None:
    pixels = noise(8, 8, 3)
    small = frame(Image.fromarray(pixels), "x", Framing(4, 0, "box")).astype(float)
    mean = pixels.reshape(4, 2, 4, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(small - mean).max() <= 1  # Pillow rounds twice, after the rows and after the columns
    assert np.abs(small - mean).mean() < 0.5


@pytest.mark.parametrize("resize", [name for name in RESIZES if name not in ("none", "pad")])
@pytest.mark.parametrize("size", [3, 16])
def test_every_filter_keeps_a_constant_and_is_pillows(resize: str, size: int) -> None:
    framing = Framing(size, 0, resize)
    flat = Image.new("RGB", (9, 9), (10, 200, 30))
    assert (frame(flat, "x", framing) == np.array([10, 200, 30])[:, None, None]).all()
    image = Image.fromarray(noise(9, 9, 3))
    oracle = np.asarray(image.resize((size, size), getattr(Image.Resampling, resize.upper())))
    assert np.array_equal(frame(image, "x", framing), oracle.transpose(2, 0, 1))


@pytest.mark.parametrize(("width", "height", "left", "top"), [(4, 4, 2, 2), (3, 8, 2, 0), (5, 1, 1, 3)])
def test_pad_adds_a_black_border_to_the_whole_image(width: int, height: int, left: int, top: int) -> None:
    pixels = noise(height, width, 3)
    expected = np.zeros((8, 8, 3), np.uint8)
    expected[top : top + height, left : left + width] = pixels
    assert np.array_equal(frame(Image.fromarray(pixels), "x", Framing(8, 0, "pad")), expected.transpose(2, 0, 1))
    with pytest.raises(DataError, match=rf"x: {width}x{height} pixels, larger than 2x2, and pad only adds"):
        frame(Image.fromarray(pixels), "x", Framing(2, 0, "pad"))


def test_pad_after_a_crop() -> None:
    pixels = noise(6, 5, 3)
    found = frame(Image.fromarray(pixels), "x", Framing(4, 2, "pad"))
    assert np.array_equal(found[:, 1:3, 1:3], pixels[2:4, 1:3].transpose(2, 0, 1))
    assert found.sum() == pixels[2:4, 1:3].sum()


@pytest.mark.parametrize("resize", RESIZES)
def test_an_image_that_fits_is_never_resampled(resize: str) -> None:
    pixels = noise(4, 4, 3)
    assert np.array_equal(frame(Image.fromarray(pixels), "x", Framing(4, 0, resize)), pixels.transpose(2, 0, 1))


def test_another_size_without_resize_says_what_to_set() -> None:
    with pytest.raises(DataError) as error:
        decode(encode(Image.new("RGB", (6, 5))), "a.zip: cats/1.png", PLAIN)
    assert str(error.value) == (
        "a.zip: cats/1.png: 6x5 pixels, 5x5 after the centre crop, expected 4x4; set data.resize to one of "
        "box, bilinear, bicubic, lanczos, which scales the images"
    )


@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP"])
def test_lossless_formats(format: str) -> None:
    colours = Image.fromarray(np.tile(np.array([[250, 3, 77]], np.uint8), (4, 4, 1)))
    options = {"lossless": True} if format == "WEBP" else {}
    decoded = decode(encode(colours, format, **options), "x", PLAIN)
    assert (decoded == np.array([250, 3, 77])[:, None, None]).all()


def test_grey_is_repeated() -> None:
    pixels = noise(4, 4)
    assert np.array_equal(decode(encode(Image.fromarray(pixels)), "x", PLAIN), np.stack([pixels] * 3))
    bits = Image.fromarray(pixels > 127)
    assert np.array_equal(decode(encode(bits), "x", PLAIN)[1], (pixels > 127) * 255)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_keeps_its_levels(format: str) -> None:
    """v * 257 is the 16-bit level of the 8-bit level v; Pillow's own conversion would clip all of them at 255."""
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    decoded = decode(encode(Image.fromarray(levels), format), "x", Framing(16, 0, "none"))
    assert np.array_equal(decoded, np.stack([np.arange(256).reshape(16, 16)] * 3))


def test_16_bit_grey_is_rounded() -> None:
    levels = np.full((4, 4), 257 * 100 + 128, np.uint16)
    levels[0, 0] += 1
    decoded = decode(encode(Image.fromarray(levels)), "x", PLAIN)
    assert (decoded[0, 0, 0], decoded[0, 1, 1]) == (101, 100)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bit_pixels_are_refused(mode: str) -> None:
    with pytest.raises(DataError, match=rf"^x\.tif: 32-bit pixels \(mode {mode}\)"):
        decode(encode(Image.new(mode, (4, 4)), "TIFF"), "x.tif", PLAIN)


def test_palette() -> None:
    image = Image.fromarray(np.tile(np.array([[12, 34, 56], [250, 0, 9]], np.uint8), (4, 2, 1)))
    assert np.array_equal(
        decode(encode(image.convert("P", palette=Image.Palette.ADAPTIVE)), "x", PLAIN),
        np.asarray(image).transpose(2, 0, 1),
    )


@pytest.mark.parametrize(("alpha", "expected"), [(255, (10, 20, 30)), (0, (255, 255, 255)), (51, (206, 208, 210))])
def test_transparency_is_laid_over_white(alpha: int, expected: tuple[int, int, int]) -> None:
    decoded = decode(encode(Image.new("RGBA", (4, 4), (10, 20, 30, alpha))), "x", PLAIN)
    assert (decoded == np.array(expected)[:, None, None]).all()


def test_transparency_of_grey_palette_and_colour_key() -> None:
    assert (decode(encode(Image.new("LA", (4, 4), (7, 0))), "x", PLAIN) == 255).all()
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert (decode(encode(palette, transparency=1), "x", PLAIN) == 255).all()
    assert (decode(encode(palette, transparency=b"\xff\x00"), "x", PLAIN) == 255).all()
    keyed = Image.new("RGB", (4, 4), (10, 20, 30))
    keyed.putpixel((0, 0), (1, 2, 3))
    decoded = decode(encode(keyed, transparency=(1, 2, 3)), "x", PLAIN)
    assert decoded[:, 0, 0].tolist() == [255, 255, 255]
    assert decoded[:, 1, 1].tolist() == [10, 20, 30]


def test_cmyk() -> None:
    """(1 - C)(1 - K) per channel, in a TIFF, which stores CMYK without loss."""
    decoded = decode(encode(Image.new("CMYK", (4, 4), (255, 0, 51, 0)), "TIFF"), "x", PLAIN)
    assert (decoded == np.array([0, 255, 204])[:, None, None]).all()


def test_exif_orientation_is_applied() -> None:
    pixels = noise(4, 4, 3)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by a quarter clockwise
    assert np.array_equal(decode(encode(image, exif=exif), "x", PLAIN), np.rot90(pixels, -1).transpose(2, 0, 1))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_data_do_not_matter(format: str) -> None:
    assert decode(encode(Image.new("RGB", (4, 4)), format, exif=b"Exif\0\0nothing"), "x", PLAIN).max() == 0


def test_a_transparent_level_of_16_bits_is_white() -> None:
    levels = np.full((4, 4), 1000, np.uint16)
    levels[0, 0] = 257
    decoded = decode(encode(Image.fromarray(levels), transparency=1000), "x", PLAIN)
    assert (decoded[0, 0, 0], decoded[0, 1, 1]) == (1, 255)


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    decoded = decode(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]), "x", PLAIN)
    assert decoded[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncated_at_any_byte_is_refused_by_name(format: str) -> None:
    whole = encode(Image.fromarray(noise(32, 32, 3)), format)
    refused = []
    for end in range(0, len(whole) * 3 // 4, max(1, len(whole) // 40)):
        try:
            decode(whole[:end], "bird/7.img", Framing(32, 0, "none"))
        except DataError as error:
            refused.append(str(error))
    assert len(refused) >= 30
    assert all(message.startswith("bird/7.img: damaged image (") and "\n" not in message for message in refused)


def test_text_is_not_an_image() -> None:
    with pytest.raises(DataError, match=r"^notes\.png: damaged image \(not an image that Pillow reads\)"):
        decode(b"these are notes", "notes.png", PLAIN)


@pytest.mark.parametrize("limit", [20, 40])
def test_too_many_pixels(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow warns above its limit and raises above twice the limit; both are refused."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    bomb = encode(Image.new("RGB", (7, 7)))
    with strict_decoding(), pytest.raises(DataError, match=r"^bomb\.png: too many pixels for Pillow's limit"):
        decode(bomb, "bomb.png", Framing(7, 0, "none"))


def test_strict_decoding_restores_the_filters() -> None:
    before = list(warnings.filters)
    with strict_decoding():
        assert warnings.filters != before
    assert warnings.filters == before
