from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.data.reading.picture_names import FORMS, PictureNames, looks_like_picture_name


@pytest.mark.parametrize(
    ("cell", "form"),
    [
        ("1.png", 0),
        ("./1.png", 0),
        (".\\1.png", 0),
        ("pics/1.png", 0),
        ("/home/ann/data/1.png", 0),
        ("C:\\Users\\ann\\pics\\1.png", 0),
        ("  1.png ", 0),
        ("1.PNG", 1),
        ("PICS/1.Png", 1),
        ("00001.png", 2),
        ("1", 3),
        ("pics/1", 3),
        ("00001", 5),
        ("D:\\pics\\00001", 5),
    ],
)
def test_ways_to_call_a_picture(cell: str, form: int) -> None:
    matches = PictureNames("pics", ["0.png", "1.png", "11.png"]).match([cell])
    assert matches.picture == {cell: 1}
    assert FORMS[matches.form[cell]] == FORMS[form]


@pytest.mark.parametrize(
    "cell", ["2.png", "1.jpg", "1.png.txt", "x1.png", "01x.png", "", "/", "https://example.org/2.png", "-1", "1.5"]
)
def test_cells_that_mean_no_picture(cell: str) -> None:
    assert PictureNames("pics", ["0.png", "1.png"]).match([cell]).form == {}


def test_sub_folders() -> None:
    names = PictureNames("pics", ["sub/dir/1.png", "sub/dir/2.png", "other/2.png", "2.png", "sub/Photo.JPEG"])
    cells = [
        "1.png",
        "dir\\1.png",
        "x/sub/dir/1.png",
        "2.png",
        "dir/2.png",
        "elsewhere/dir/2.png",
        "sub/photo.jpg",
        "wrong/1.png",
    ]
    matches = names.match(cells)
    assert matches.picture == {
        "1.png": 0,
        "dir\\1.png": 0,
        "x/sub/dir/1.png": 0,
        "2.png": 3,
        "dir/2.png": 1,
        "elsewhere/dir/2.png": 3,
        "sub/photo.jpg": 4,
    }, "the whole path wins, then the longest end; a folder that contradicts the picture's own is no match"
    assert matches.unclear == {}


def test_names_that_several_pictures_have_are_unclear() -> None:
    names = PictureNames("pics", ["a/1.png", "b/1.png", "c.png", "c.jpg", "07.png", "7.gif", "D.png", "d.png"])
    matches = names.match(["1.png", "c", "c.png", "007", "7.gif", "07", "D", "d.PNG"])
    assert matches.unclear == {"1.png": [0, 1], "c": [2, 3], "007": [4, 5], "d.PNG": [6, 7]}
    assert matches.picture == {"c.png": 2, "7.gif": 5, "07": 4, "D": 6}, "what is exact is clear"


def test_rows_of_another_folder_are_none_of_this_one() -> None:
    cells = ["data/train/1.png", "data/test/1.png", "data/test/2.png"]
    assert PictureNames("train", ["1.png", "2.png"]).match(cells).picture == {"data/train/1.png": 0}
    assert PictureNames("images", ["1.png", "2.png"]).match(cells[1:]).picture == {"data/test/1.png": 0, "data/test/2.png": 1}


def test_unicode_forms_and_letter_case() -> None:
    composed, decomposed = (unicodedata.normalize(form, "Äpfel/Straße é.png") for form in ("NFC", "NFD"))
    assert composed != decomposed
    for written, stored in ((composed, decomposed), (decomposed, composed), (composed.upper(), decomposed)):
        assert PictureNames("pics", [stored]).match([written]).picture == {written: 0}


def test_what_looks_like_a_file() -> None:
    assert all(map(looks_like_picture_name, ["a.png", "x/b.JPEG", "c.tif"]))
    assert not any(map(looks_like_picture_name, ["a", "7", "a.txt", "png", "https://example.org/a.png"]))


_PART = st.text("abAB01é", min_size=1, max_size=3)
_PATHS = st.lists(
    st.tuples(st.lists(_PART, max_size=2), _PART, st.sampled_from([".png", ".jpg"])).map(
        lambda p: "/".join([*p[0], p[1] + p[2]])
    ),
    min_size=1,
    max_size=8,
    unique=True,
)


@given(_PATHS, st.data())
def test_the_exact_path_always_means_its_picture(paths: list[str], data: st.DataObject) -> None:
    names = PictureNames("zz", paths)
    windows = [f"C:\\data\\zz\\{path}".replace("/", "\\") for path in paths]
    assert names.match(paths).picture == {path: index for index, path in enumerate(paths)}
    absolute = names.match(windows)
    assert all(absolute.picture.get(cell, index) == index for index, cell in enumerate(windows))
    cell = data.draw(st.one_of(_PATHS.map(lambda found: found[0]), _PART))
    found = names.match([cell])
    assert len(found.picture) + len(found.unclear) == len(found.form) <= 1
    assert all(len(members) > 1 for members in found.unclear.values())
