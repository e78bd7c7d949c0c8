"""What is opened as a picture, and what is refused before a pixel is decoded."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

import graftwork
from graftwork.core.errors import DataError
from graftwork.data.encoders.image import ImageEncoder
from graftwork.data.encoders.picture_files import PictureError, list_images, open_picture, unread_note
from graftwork.data.reading.ingest import open_suite


def in_format(picture: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def large_png(side: int) -> bytes:
    """A grey PNG whose header promises ``side`` x ``side`` pixels and which holds hardly any."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_postscript_reaches_no_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    Image.init()
    content = in_format(Image.new("RGB", (8, 8)), "EPS")
    (tmp_path / "a.png").write_bytes(content)
    for item in (tmp_path / "a.png", content):
        with pytest.raises(DataError, match="a PostScript file, which is not read"):
            ImageEncoder(8).transform([item])


def test_only_one_place_opens_pictures() -> None:
    root = Path(graftwork.__file__).parent
    bare = [
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(r"\b(images?|Image|library|pillow|pil)\.open\(", line) and "formats=" not in line
    ]
    assert bare == []


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_formats_read(kind: str) -> None:
    shown = ImageEncoder(8).encode_one(in_format(Image.new("RGB", (8, 8), (250, 250, 250)), kind))
    assert shown.min() >= 240


@pytest.mark.parametrize("kind", ["ICO", "TGA", "PCX", "SGI", "JPEG2000", "ICNS", "DDS", "PDF"])
def test_other_formats_are_refused(kind: str) -> None:
    content = in_format(Image.new("RGB", (16, 16)), kind)
    with pytest.raises(PictureError, match="not a readable picture"):
        ImageEncoder(8).encode_one(content)


def test_too_many_pixels_are_refused_by_the_header(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(large_png(8000))
    with pytest.raises(DataError) as caught:
        ImageEncoder(16).transform([tmp_path / "large.png"])
    for part in ("large.png (8000 x 8000 pixels, the limit is 50,000,000)", "Make too large ones smaller", "16 x 16 pixels"):
        assert part in str(caught.value)
    for content, limit in ((large_png(100), 9_999), (in_format(Image.new("RGB", (100, 100)), "WEBP"), 19_999)):
        with pytest.raises(PictureError, match="100 x 100 pixels, the limit is 9,999") as one:
            ImageEncoder(16).encode_one(content, max_pixels=limit)
        assert one.value.too_large
    with pytest.raises(PictureError, match="400,000,000 pixels, the limit is 50,000,000"):
        ImageEncoder(16).encode_one(large_png(20_000))


def test_a_jpeg_that_is_shrunk_while_decoded_may_be_larger() -> None:
    picture = Image.fromarray(np.linspace(0, 255, 1000 * 1000).reshape(1000, 1000).astype(np.uint8))
    plain, progressive = in_format(picture, "JPEG"), in_format(picture, "JPEG", progressive=True)
    assert ImageEncoder(16).encode_one(plain, max_pixels=400_000).shape == (16, 16, 3)
    for encoder, content, limit in (
        (ImageEncoder(16), progressive, 999_999),
        (ImageEncoder(16), plain, 333_333),
        (ImageEncoder(512), plain, 999_999),  # nothing to shrink
    ):
        with pytest.raises(PictureError, match="1000 x 1000 pixels, the limit is"):
            encoder.encode_one(content, max_pixels=limit)


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    for name in (
        "a.png",
        "b/c.JPG",
        ".DS_Store",
        "Thumbs.db",
        "._a.png",
        ".cache/d.png",
        "__MACOSX/e.png",
        ".hidden.png",
        "f.jfif",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)] == ["a.png", "b/c.JPG", "f.jfif"]


def test_links(tmp_path: Path) -> None:
    folder, outside = tmp_path / "pics", tmp_path / "outside"
    for place in (folder / "sub", outside):
        place.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(place / "a.png")
    os.symlink(folder / "sub" / "a.png", folder / "same.png")
    os.symlink(folder / "sub", folder / "again")
    os.symlink(outside, folder / ".hidden")
    (outside / "notes.txt").write_text("x")
    os.symlink(outside / "notes.txt", folder / "notes.txt")
    assert [path.relative_to(folder).as_posix() for path in list_images(folder)] == ["same.png", "sub/a.png"]
    os.symlink(folder / "gone.png", folder / "nowhere.png")
    os.symlink(folder / "circle.txt", folder / "circle.txt")
    with pytest.raises(DataError, match=r"nowhere.png \(a link to a file that does not exist\)"):
        ImageEncoder(8).transform(list_images(folder))
    os.symlink(outside / "a.png", folder / "b.png")
    os.symlink(outside, folder / "c")
    with pytest.raises(
        DataError, match="2 links lead out of the folder: b.png -> .*a.png, c -> .*outside. Only files inside.*cp -rL"
    ):
        list_images(folder)
    os.symlink(folder, tmp_path / "linked")
    (folder / "b.png").unlink()
    (folder / "c").unlink()
    assert len(list_images(tmp_path / "linked")) == 3, "the folder itself may be a link"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders")
def test_a_pipe_under_the_name_of_a_picture_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "pics"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    os.mkfifo(folder / "pipe")  # of no interest
    assert len(list_images(folder)) == 1
    os.mkfifo(folder / "b.png")
    with pytest.raises(DataError, match=r"b\.png is a pipe, a socket or a device, not a file"):
        list_images(folder)
    (folder / "b.png").unlink()
    os.symlink("pipe", folder / "c.png")
    with pytest.raises(DataError, match=r"c\.png is a pipe"):
        list_images(folder)


def test_a_picture_that_cannot_be_read_is_named_where_pictures_are_decoded(tmp_path: Path) -> None:
    folder = tmp_path / "pics"
    folder.mkdir()
    rows = ["file,a"]
    for index in range(30):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(folder / f"{index}.png")
        rows.append(f"{index}.png,{index}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    os.remove(folder / "7.png")
    os.symlink(tmp_path / "gone.png", folder / "7.png")
    with pytest.raises(DataError, match=r"7\.png \(a link to a file that does not exist\)"):
        open_suite(folder, labels=tmp_path / "labels.csv", targets="a", strict=True)


def test_folders_that_cannot_be_listed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be listed: No such file"):
        list_images(tmp_path / "gone")
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(DataError, match="cannot be listed: Not a directory"):
        list_images(tmp_path / "a.png")


def test_formats_that_are_not_read_are_said(tmp_path: Path) -> None:
    for index in range(20):
        name = "cat" if index % 2 else "dog"
        (tmp_path / name).mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (index * 9, 0, 200 if index % 2 else 0)).save(tmp_path / name / f"{index}.png")
    assert unread_note(tmp_path) == []
    (tmp_path / "cat" / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    suite = open_suite(tmp_path)
    assert any("1 files are of picture formats that are not read (cat/phone.HEIC)" in note for note in suite.notes)
    with pytest.raises(PictureError, match="a HEIC, AVIF or video file"):
        ImageEncoder(8).encode_one(tmp_path / "cat" / "phone.HEIC")


def test_what_a_decoder_raises_becomes_a_named_fault(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for error in (struct.error("x"), KeyError("x"), MemoryError(), ZeroDivisionError(), AssertionError()):
        with (
            pytest.raises(PictureError, match=r"a.png \((truncated or damaged|not enough memory to decode it)\)"),
            open_picture(tmp_path / "a.png"),
        ):
            raise error


def test_cut_and_changed_files_are_refused_or_decoded() -> None:
    draw = np.random.default_rng(0)
    picture = Image.fromarray(draw.integers(0, 255, (40, 40, 3), dtype=np.uint8))
    encoder = ImageEncoder(16)
    refused = 0
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"):
        whole = in_format(picture, kind)
        for _ in range(30):
            content = bytearray(whole[: draw.integers(0, len(whole) + 1)] if draw.random() < 0.5 else whole)
            for place in draw.integers(0, max(len(content), 1), 3).tolist() if content else []:
                content[place] = int(draw.integers(256))
            try:
                assert encoder.encode_one(bytes(content)).shape == (16, 16, 3)
            except PictureError:
                refused += 1
    assert refused > 50
