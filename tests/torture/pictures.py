"""Damaged pictures, links among them, and files of labels that name what they should not."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from pathlib import Path

__all__ = ["LABELS", "OUTSIDE", "bomb", "damage_links", "damage_picture", "solid_picture"]

OUTSIDE = "outside"
"""Folder beside that of the damaged copies; nothing in it may be opened."""
_UP = f"../../../{OUTSIDE}"

LABELS = (
    *(f"{_UP}/secret.png", f"pictures/{_UP}/secret.png", f"./{_UP}//secret.png", "/etc/hostname", "/dev/zero", "/dev/stdin", "/proc/self/environ", "."),
    *("..", "", " ", "0.png\0.png", "~/0.png", "$HOME/0.png", "file:///etc/hostname", "http://127.0.0.1:9/0.png", "0.png/../1.png", "\\\\host\\0.png"),
    *("C:\\0.png", "0.PNG", "0", "n" * 5_000, "é.png", "\ud800.png", "-0.png", "*.png", "0.png;1.png", "pictures/0.png", "../pictures/0.png", "nan"),
)  # fmt: skip
"""Names of pictures as a file of labels must not give them, and some that it may."""


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(width: int, height: int, depth: int, colour: int, data: bytes, before: bytes = b"", interlace: int = 0) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + before + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def solid_picture() -> bytes:
    """Return a small grey picture."""
    return _png(8, 8, 8, 0, zlib.compress((b"\0" + b"\x80" * 8) * 8))


def _zeros(size: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(b"\0" * (1 << 20)) for _ in range(size >> 20)) + packer.flush()


def bomb(rng: random.Random) -> bytes:
    """Return a small file that is much larger when it is decoded, or says so."""
    way = rng.randrange(8)
    side = rng.choice((1, 1_000, 7_000, 7_072, 20_000, 65_535, 2**31 - 1, 0))
    if way == 0:  # a header alone
        return _png(side, rng.choice((side, 1)), rng.choice((1, 8, 16)), rng.choice((0, 2, 3, 4, 6)), zlib.compress(b"\0"))
    if way == 1:  # pixels that are there
        side = rng.choice((2_000, 5_000, 7_000))
        return _png(side, side, 8, 0, _zeros(side * (side + 1) + (1 << 20)), interlace=rng.choice((0, 1)))
    if way == 2:  # more data than pixels
        return _png(8, 8, 8, 2, _zeros(rng.choice((1, 64, 256)) << 20))
    if way == 3:  # a text or a profile of colours that is large
        data = _zeros(rng.choice((1, 64, 256)) << 20)
        kind = rng.choice(((b"zTXt", b"a\0\0" + data), (b"iCCP", b"a\0\0" + data), (b"iTXt", b"a\0\1\0\0\0" + data)))
        return _png(8, 8, 8, 0, zlib.compress(b"\0" * 72), before=_chunk(*kind) * rng.choice((1, 20)))
    if way == 4:  # a picture of very many frames
        from PIL import Image

        content = io.BytesIO()
        frames = [Image.new("L", (64, 64), shade) for shade in range(200)]
        frames[0].save(content, rng.choice(("GIF", "TIFF", "WEBP", "PNG")), save_all=True, append_images=frames[1:])
        return content.getvalue()
    if way == 5:  # a TIFF whose directory leads to itself, or has entries of absurd counts
        entries = [
            (256, 4, 1, side),
            (257, 4, 1, side),
            (258, 3, 1, 8),
            (259, 3, 1, rng.choice((1, 5, 8, 32773))),
            (262, 3, 1, 1),
        ]
        entries += [(273, 4, rng.choice((1, 2**31)), 8), (278, 4, 1, side), (279, 4, 1, rng.choice((64, 2**32 - 1)))]
        body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        return b"II*\0" + struct.pack("<I", 8) + body + struct.pack("<I", rng.choice((8, 0, 2**32 - 1)))
    if way == 6:  # PPM and BMP, whose sizes are in the open
        return rng.choice((f"P6 {side} {side} 255\n".encode(), b"P1 " + b"9" * 5_000, b"P6 8 8 255\n" + b"x" * 192))
    return (
        b"BM"
        + struct.pack("<IHHI", 100, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, side, -side, 1, 24, 0, 0, 0, 0, 0, 0)
        + b"x" * 64
    )


def damage_picture(rng: random.Random, content: bytes) -> bytes:
    """Return another picture: a bomb, a file of another kind under this name, or a header with other sizes."""
    way = rng.randrange(4)
    if way == 0:
        return bomb(rng)
    if way == 1:
        return rng.choice(
            (
                b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n",
                b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/hostname"/></svg>',
                b"#!/bin/sh\ntouch x\n", b"\x80\x04\x95\0\0\0\0\0\0\0\0.", b"PK\x03\x04" + b"\0" * 60, b"\x1f\x8b" + b"\0" * 60, b"%PDF-1.4\n",
                b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 40, b"ID3" + b"\0" * 40, b"<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/hostname'>]><x>&a;</x>",
            )
        )  # fmt: skip
    if content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) > 33:
        head = bytearray(content[16:29])
        head[rng.randrange(len(head))] = rng.randrange(256)
        # With the right sum, so that it is looked at.
        return content[:8] + _chunk(b"IHDR", bytes(head)) + content[33:]
    at = rng.randrange(min(64, len(content)) or 1)
    return content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]


def damage_links(rng: random.Random, path: Path) -> str:
    """Put a link, a pipe or a folder in the place of a picture, or a folder of pictures; return what."""
    target = rng.choice(
        (
            f"{_UP}/secret.png", _UP, "/dev/zero", "/dev/stdin", "/proc/self/mem", "/etc/hostname", "/", ".", "..", "nowhere.png", path.name, "1.png",
            str(path.resolve().parent / "2.png"), "../pictures", f"{_UP}/pipe.png",
        )
    )  # fmt: skip
    way = rng.choice(("link", "link", "link", "pipe", "folder", "linked folder", "unreadable"))
    if way == "linked folder":
        path = path.parent / "more"
        path.unlink(missing_ok=True)
    elif way != "unreadable":
        path.unlink()
    if way in ("link", "linked folder"):
        path.symlink_to(target)
        return f"{path.name} -> {target}"
    if way == "pipe":
        os.mkfifo(path)
    elif way == "folder":
        path.mkdir()
    else:
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
        path.chmod(0)
    return f"{path.name}: {way}"
