from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graftwork.core.errors import DataError
from graftwork.data.encoders import encoder_from_state
from graftwork.data.encoders.image import ImageEncoder
from graftwork.data.encoders.picture_files import list_images


def test_transparency_over_background(tmp_path: Path) -> None:
    picture = np.zeros((16, 16, 4), dtype=np.uint8)
    picture[:8] = [255, 0, 0, 255]
    Image.fromarray(picture).save(tmp_path / "a.png")
    encoded = ImageEncoder(16).transform([tmp_path / "a.png"])["image"]
    assert encoded.shape == (1, 16, 16, 3)
    assert encoded.dtype == np.uint8
    assert encoded[0, 0, 0].tolist() == [255, 0, 0]
    assert encoded[0, 15, 0].tolist() == [255, 255, 255]
    grey = ImageEncoder(16, background=(10, 20, 30)).transform([str(tmp_path / "a.png")])["image"]
    assert grey[0, 15, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "I;16", "LA"])
def test_modes(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        Image.fromarray(np.full((12, 12), 65535, dtype=np.uint16)).save(tmp_path / "a.png")
    elif mode == "CMYK":
        Image.new("CMYK", (12, 12), (0, 0, 0, 0)).save(tmp_path / "a.jpg", quality=100)
    else:
        Image.new("L", (12, 12), 255).convert(mode).save(tmp_path / "a.png")
    (path,) = list_images(tmp_path)
    assert (ImageEncoder(12).transform([path])["image"] >= 254).all()


def test_making_square(tmp_path: Path) -> None:
    picture = np.zeros((10, 40, 3), dtype=np.uint8)
    picture[:, 20:] = 200
    Image.fromarray(picture).save(tmp_path / "wide.png")
    path = [tmp_path / "wide.png"]
    padded = ImageEncoder(40).transform(path)["image"][0]
    assert padded[0].min() == 255
    assert padded[20, 5].tolist() == [0, 0, 0]
    assert padded[20, 35].tolist() == [200, 200, 200]
    cropped = ImageEncoder(10, fit="crop").transform(path)["image"][0]
    assert cropped[:, :5].max() == 0
    assert cropped[:, 5:].min() == 200
    stretched = ImageEncoder(20, fit="stretch").transform(path)["image"][0]
    assert stretched[0, 0].tolist() == [0, 0, 0]
    assert stretched[0, 19].tolist() == [200, 200, 200]


def test_exif_orientation(tmp_path: Path) -> None:
    picture = np.zeros((16, 16, 3), dtype=np.uint8)
    picture[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    encoded = ImageEncoder(16).transform([tmp_path / "a.png"])["image"][0]
    assert encoded[0].max() == 0
    assert encoded[15].min() == 255


def test_bytes_and_state(tmp_path: Path) -> None:
    Image.new("RGB", (20, 30), (1, 2, 3)).save(tmp_path / "a.png")
    encoder = ImageEncoder(24, fit="stretch", background=(0, 0, 0))
    again = encoder_from_state(json.loads(json.dumps(encoder.state())))
    one = encoder.transform([tmp_path / "a.png"])["image"]
    two = again.transform([(tmp_path / "a.png").read_bytes()])["image"]
    np.testing.assert_array_equal(one, two)
    assert again.input_sizes() == {"image_size": 24}
    assert encoder_from_state({"kind": "image", "size": 8}).input_sizes() == {"image_size": 8}


def test_all_faulty_pictures_are_named_at_once(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "good.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:900])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "words.png").write_text("not a picture")
    header = tmp_path / "bomb.ppm"
    header.write_bytes(b"P6 30000 30000 255\n")
    paths = [*sorted(tmp_path.glob("*.*")), tmp_path / "gone.png"]
    with pytest.raises(DataError) as caught:
        ImageEncoder(16).transform(paths)
    text = str(caught.value)
    assert text.startswith("5 of 6 pictures cannot be decoded")
    assert "cut.jpg (truncated or damaged)" in text
    assert "empty.png (zero bytes)" in text
    assert "words.png (not a readable picture)" in text
    assert "bomb.ppm (900,000,000 pixels, the limit is 50,000,000)" in text
    assert "gone.png (no such file)" in text
    assert "good.jpg" not in text
    assert "Replace these files" in text


def test_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="from 8 to 1024 pixels; got 4"):
        ImageEncoder(4)
    with pytest.raises(DataError, match="one of pad, stretch, crop; got 'zoom'"):
        ImageEncoder(16, fit="zoom")
    with pytest.raises(DataError, match=r"holds no pictures. Endings read: \.png"):
        list_images(tmp_path)


def test_listing_is_sorted_and_recursive(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("z.png", "b/a.JPG", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)] == ["b/a.JPG", "z.png"]
