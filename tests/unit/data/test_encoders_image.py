from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from graftwork.core.errors import DataError
from graftwork.data.encoders import encoder_from_state
from graftwork.data.encoders.deep_pixels import survey_pictures
from graftwork.data.encoders.image import ImageEncoder
from graftwork.data.encoders.picture_files import MAX_PIXELS, list_images


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
    assert again.sizes() == {"image_size": 24}
    assert encoder_from_state({"kind": "image", "size": 8}).sizes() == {"image_size": 8}


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


def block(orientation: int, *, damaged: bool = True) -> bytes:
    """An EXIF block with an orientation and, if ``damaged``, a resolution of -1/0, which can be read and not be written."""
    entries = [struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)]
    entries += [struct.pack("<HHII", 0x011A, 10, 1, 8 + 2 + 2 * 12 + 4)] if damaged else []
    values = struct.pack("<ii", -1, 0) if damaged else b""
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + struct.pack("<I", 0) + values


def upright() -> NDArray[np.uint8]:
    """A wide picture with a different grey in each corner."""
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:16, :32], picture[:16, 32:], picture[16:, :32], picture[16:, 32:] = 240, 160, 80, 10
    return picture


# How a camera stores an upright picture under each orientation.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("damaged", [True, False])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_all_orientations_are_upright(kind: str, orientation: int, damaged: bool) -> None:
    content = io.BytesIO()
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright())))
    if kind == "TIFF":
        stored.save(content, kind, tiffinfo={0x0112: orientation, **({0x8769: 10**9} if damaged else {})})
    else:
        stored.save(content, kind, exif=block(orientation, damaged=damaged), **({} if kind == "PNG" else {"quality": 100}))
    for fit, corners in (("pad", (20, 44)), ("stretch", (16, 48)), ("crop", (24, 40))):
        shown = ImageEncoder(64, fit=fit).encode_one(content.getvalue()).astype(int)
        found = [shown[y, x, 0] for y in corners for x in corners]
        assert np.abs(np.array(found) - [240, 160, 80, 10]).max() <= 6, (fit, found)
        if fit == "pad":
            assert shown[:14].min() >= 250


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08" + b"\xff" * 32]
)
def test_a_damaged_exif_block_is_none(exif: bytes) -> None:
    content = io.BytesIO()
    Image.fromarray(upright()).save(content, "JPEG", exif=exif, quality=100)
    shown = ImageEncoder(64, fit="stretch").encode_one(content.getvalue()).astype(int)
    assert np.abs(np.array([shown[y, x, 0] for y in (16, 48) for x in (16, 48)]) - [240, 160, 80, 10]).max() <= 6


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "P clear", "RGB", "RGBA", "CMYK", "I;16"])
def test_the_same_as_converting_and_resizing_the_whole(mode: str) -> None:
    draw = np.random.default_rng(3)
    for width, height, size in ((300, 200, 9), (1900, 300, 16), (64, 64, 64), (50, 20, 40), (2300, 8, 8)):
        pixels = Image.fromarray(draw.integers(0, 256, (height, width, 4), dtype=np.uint8), "RGBA")
        options = {}
        if mode == "P clear":
            picture, options = pixels.convert("RGB").quantize(20, Image.Quantize.FASTOCTREE), {"transparency": 3}
        elif mode == "I;16":
            picture = Image.fromarray(draw.integers(0, 65536, (height, width), dtype=np.uint16))
        else:
            picture = pixels.convert("RGB").quantize(20, Image.Quantize.FASTOCTREE) if mode == "P" else pixels.convert(mode)
        content = io.BytesIO()
        picture.save(content, "TIFF" if mode == "CMYK" else "PNG", **options)
        whole = Image.open(io.BytesIO(content.getvalue()))
        if mode == "I;16":
            whole = Image.fromarray(np.rint(np.asarray(whole) / 257).astype(np.uint8))
        elif mode in ("LA", "RGBA", "P clear"):
            canvas = Image.new("RGBA", whole.size, (255, 255, 255, 255))
            canvas.alpha_composite(whole.convert("RGBA"))
            whole = canvas
        expected = whole.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0)
        shown = ImageEncoder(size, fit="stretch").encode_one(content.getvalue())
        np.testing.assert_array_equal(shown, np.asarray(expected))


def test_a_large_jpeg_looks_as_if_it_were_decoded_whole() -> None:
    rows, columns = np.mgrid[:1203, :1807]
    picture = Image.fromarray(np.stack([rows // 5 % 256, columns // 8 % 256, (rows + columns) // 12 % 256], -1).astype(np.uint8))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=95)
    plain = io.BytesIO()
    picture.save(plain, "PNG")
    for fit in ("pad", "crop", "stretch"):
        jpeg, png = (ImageEncoder(32, fit=fit).encode_one(item.getvalue()).astype(int) for item in (content, plain))
        assert np.abs(jpeg - png).mean() < 2


def test_of_animations_the_first_frame_is_used_and_said(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), (shade, shade, shade)) for shade in (250, 0, 120)]
    for kind in ("gif", "webp", "tiff", "png"):
        frames[0].save(tmp_path / f"moving.{kind}", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "still.gif")
    paths = list_images(tmp_path)
    assert (ImageEncoder(8).transform(paths)["image"] >= 245).all()
    (note,) = survey_pictures(paths).notes
    assert note == "4 pictures have several frames; the first is used: moving.gif, moving.png, moving.tiff and 1 more."


def test_faults_of_all_batches_are_named_at_once(tmp_path: Path) -> None:
    for index in range(9):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{index}.png")
    paths = sorted(tmp_path.glob("*.png"))
    encoder = ImageEncoder(8)
    batches = [paths[:3], paths[3:6], paths[6:]]
    assert [len(part["image"]) for part in encoder.transform_batches(batches)] == [3, 3, 3]
    (tmp_path / "4.png").write_bytes(b"")
    (tmp_path / "8.png").write_bytes(b"\x89PNG\r\n")
    done = []
    with pytest.raises(
        DataError, match=r"2 of 9 pictures cannot be decoded: .*4.png \(zero bytes\), .*8.png \(truncated or damaged\)"
    ):
        for part in encoder.transform_batches(batches):
            done.append(len(part["image"]))
    assert done == [3], "nothing is computed after the first fault"


_PEAK = """
import sys
from graftwork.data.encoders.image import ImageEncoder
encoder, content = ImageEncoder(64), open(sys.argv[1], "rb").read()
encoder.encode_one(open(sys.argv[2], "rb").read())
def peak():  # of this program alone; getrusage counts the one that started it too
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
encoder.encode_one(content, max_pixels=70_000_000)
print((peak() - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_one_copy_of_the_pixels(tmp_path: Path) -> None:
    Image.new("RGBA", (5000, 5000), (9, 9, 9, 99)).save(tmp_path / "large.png", compress_level=0)  # 100 MB decoded
    Image.new("RGBA", (50, 50), (9, 9, 9, 99)).save(tmp_path / "small.png")
    command = [sys.executable, "-c", _PEAK, str(tmp_path / "large.png"), str(tmp_path / "small.png")]
    peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 80 < peak < 180, "converting the whole picture would take 300 MB and more"


_DECODE = """
import sys, zlib, struct
from graftwork.data.encoders.image import ImageEncoder
from graftwork.data.encoders.picture_files import MAX_PIXELS, PictureError
from graftwork.evaluation.memory import PeakMemory
encoder, path = ImageEncoder(64), sys.argv[1]
encoder.encode_one(sys.argv[2])
content = open(path, "rb").read()
assert struct.unpack(">II", content[16:24])[0] * struct.unpack(">II", content[16:24])[1] == MAX_PIXELS
with PeakMemory() as whole:
    encoder.encode_one(content)
# One row more, said by the header alone: if it were decoded, it would take as much.
width, height = struct.unpack(">II", content[16:24])
head = b"IHDR" + struct.pack(">II", width, height + 1) + content[24:29]
content = content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:]
with PeakMemory() as refused:
    try:
        encoder.encode_one(content)
    except PictureError as error:
        assert error.too_large, error
    else:
        raise SystemExit("it was not refused")
print(whole.increase_bytes >> 20, refused.increase_bytes >> 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own mark is exact")
def test_the_largest_picture_that_is_allowed_stays_in_memory_and_one_above_is_not_decoded(tmp_path: Path) -> None:
    side = 10_000
    assert side * side // 2 == MAX_PIXELS
    Image.new("RGBA", (side, side // 2), (9, 9, 9, 99)).save(tmp_path / "large.png", compress_level=1)
    Image.new("RGBA", (50, 50), (9, 9, 9, 99)).save(tmp_path / "small.png")
    assert (tmp_path / "large.png").stat().st_size < 4_000_000, "a small file"
    command = [sys.executable, "-c", _DECODE, str(tmp_path / "large.png"), str(tmp_path / "small.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    whole, refused = map(int, done.stdout.split())
    assert 180 < whole < 300, "4 bytes a pixel, and what is next to them"
    assert refused < 20
