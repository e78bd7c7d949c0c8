"""Labels belong to their pictures, or the user is asked."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from graftwork.core.errors import ConfigError, DataError
from graftwork.data.reading.image_folder import LabelledPictures, label_pictures
from graftwork.data.reading.ingest import open_suite

NUM = 60


def folder_of(tmp_path: Path, names: list[str]) -> Path:
    """Pictures whose shade says their place in ``names``."""
    for index, name in enumerate(names):
        path = tmp_path / "pics" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), index * 4 % 256).save(path)
    return tmp_path / "pics"


def numbered(tmp_path: Path) -> tuple[Path, pd.DataFrame]:
    """``0.png`` to ``59.png``, and shuffled labels: a row number, the file, and the shade."""
    names = [f"{index}.png" for index in range(NUM)]
    order = np.random.default_rng(0).permutation(NUM)
    table = pd.DataFrame({"row": np.arange(NUM), "file": [names[i] for i in order], "shade": order * 4.0})
    return folder_of(tmp_path, names), table


def shades(found: LabelledPictures) -> list[float]:
    return [float(np.asarray(Image.open(path))[0, 0]) for path in found.images]


def note_of(found: LabelledPictures) -> str:
    return next(note for note in found.notes if "names the pictures" in note)


def test_a_row_number_never_wins_over_file_names(tmp_path: Path) -> None:
    folder, table = numbered(tmp_path)
    table.to_csv(tmp_path / "labels.csv", index=False)
    found = label_pictures(folder, tmp_path / "labels.csv")
    assert found.columns == ("file",)
    assert found.frame["shade"].astype(float).tolist() == shades(found)
    assert note_of(found) == "Column 'file' names the pictures: 60 of 60 rows match one."
    suite = open_suite(folder, labels=tmp_path / "labels.csv", targets="shade")
    np.testing.assert_allclose(suite.inputs["image"][:, 4, 4, 0], suite.targets["shade"][:, 0])
    assert "Column 'file' names the pictures: 60 of 60 rows match one." in suite.notes


def test_file_names_win_even_if_they_match_fewer_pictures(tmp_path: Path) -> None:
    folder, table = numbered(tmp_path)
    table.loc[:1, "file"] = ["gone.png", "lost.png"]
    found = label_pictures(folder, table)
    assert found.columns == ("file",)
    known = found.frame["shade"].notna()
    assert known.sum() == NUM - 2
    assert found.frame["shade"][known].tolist() == [
        shade for shade, is_known in zip(shades(found), known, strict=True) if is_known
    ]
    assert any(
        "Labels of 2 pictures that are not in the folder are left out: gone.png, lost.png." in note for note in found.notes
    )
    bare = next(note for note in found.notes if "have no row in the labels" in note)
    assert bare.startswith("2 of 60 pictures have no row in the labels and stay without labels: ")


def test_columns_that_match_equally_well_and_differ(tmp_path: Path) -> None:
    folder, table = numbered(tmp_path)
    table["id"] = table.pop("file").str.removesuffix(".png").astype(int)
    with pytest.raises(DataError) as caught:
        label_pictures(folder, table)
    for part in ("'row' and 'id' both name pictures (60 and 60 of 60)", "--image-column row", "image_column='row'"):
        assert part in str(caught.value)
    found = label_pictures(folder, table, "id")
    assert found.frame["shade"].astype(float).tolist() == shades(found)
    assert "60 without ending ('" in note_of(found)
    suite = open_suite(folder, labels=table, targets="shade", image_column="id")
    np.testing.assert_allclose(suite.inputs["image"][:, 4, 4, 0], suite.targets["shade"][:, 0])
    masks = pd.DataFrame(
        {"a": [f"{i}.png" for i in range(NUM)], "b": [f"{(i + 1) % NUM}.png" for i in range(NUM)], "y": range(NUM)}
    )
    with pytest.raises(DataError, match="'a' and 'b' both name pictures"):
        label_pictures(folder, masks)
    with pytest.raises(DataError, match="'a' and 'b' both name pictures .60 and 59 of 60"):  # nearly as well is no better
        label_pictures(folder, masks.assign(b=[*masks["b"][:-1], None]))


def test_columns_that_name_the_same_pictures_are_no_rivals(tmp_path: Path) -> None:
    folder, table = numbered(tmp_path)
    table["path"] = "/data/set/" + table["file"]
    table = table.drop(columns="row")
    found = label_pictures(folder, table)
    assert found.columns == ("file", "path")
    assert note_of(found).endswith("So does 'path'.")
    assert open_suite(folder, labels=table).task_names == ("shade",), "a second name of the picture is no target"
    assert open_suite(folder, labels=table.rename(columns={"shade": "y"}), targets="y").task_names == ("y",)


def test_a_class_number_is_no_rival_of_ids(tmp_path: Path) -> None:
    folder, table = numbered(tmp_path)
    table["id"] = table.pop("file").str.removesuffix(".png")
    table["kind"] = table.pop("row") % 10
    found = label_pictures(folder, table)
    assert found.columns == ("id",)
    assert found.frame["shade"].astype(float).tolist() == shades(found)


def test_file_names_of_other_pictures_beside_a_row_number(tmp_path: Path) -> None:
    folder, table = numbered(tmp_path)
    table["file"] = "img_" + table["file"]
    with pytest.raises(
        DataError, match="'file' holds names of picture files .'img_.*none of which is in the folder; column 'row' matches 60"
    ):
        label_pictures(folder, table)
    assert label_pictures(folder, table, "row").columns == ("row",)
    table["file"] = "https://example.org/" + table["file"]
    assert label_pictures(folder, table).columns == ("row",), "addresses on the web name no file here"


@pytest.mark.parametrize(
    ("names", "cells", "said"),
    [
        (
            ["1.png", "2.png", "10.png"],
            ["00001", "00002", "00010"],
            "3 without ending, by the number that they are ('00001' is 1.png)",
        ),
        (["00001.png", "00002.png", "00010.png"], [1, 2, 10], "3 without ending, by the number that they are ('1' is 00001.png)"),
        (["00001.png", "00002.png", "00010.png"], [1.0, 2.0, 10.0], "by the number"),
        (
            ["a.jpg", "b.jpg", "c.jpeg"],
            ["a.JPG", "b.jpeg", "c.jpg"],
            "3 with ending, in other upper or lower case ('a.JPG' is a.jpg)",
        ),
        (["A.JPG", "B.Jpg", "c.jpg"], ["a.jpg", "b.jpg", "c.jpg"], "2 with ending, in other upper or lower case"),
        (["sub/dir/1.png", "sub/dir/2.png", "3.png"], ["sub/dir/1.png", "sub\\dir\\2.png", ".\\3.png"], "3 of 3 rows match one."),
        (
            ["sub/dir/1.png", "sub/dir/2.png", "3.png"],
            ["1.png", "pics/sub/dir/2.png", "E:\\x\\pics\\3.png"],
            "3 of 3 rows match one.",
        ),
    ],
)
def test_ways_to_write_names(tmp_path: Path, names: list[str], cells: list[object], said: str) -> None:
    folder = folder_of(tmp_path, names)
    found = label_pictures(folder, pd.DataFrame({"picture": cells, "y": [names.index(name) for name in names]}))
    assert dict(zip([path.relative_to(folder).as_posix() for path in found.images], found.frame["y"], strict=True)) == {
        name: index for index, name in enumerate(names)
    }
    assert said in note_of(found)


def test_zero_padded_ids_from_a_file(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [f"{index}.png" for index in range(12)])
    (tmp_path / "l.csv").write_text("id,y\n" + "".join(f"{index:05d},{index}\n" for index in reversed(range(12))))
    found = label_pictures(folder, tmp_path / "l.csv", "id")
    assert [path.stem for path in found.images] == found.frame["y"].tolist()


def test_a_label_that_could_mean_two_pictures(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ["a.png", "a.jpg", "b.png", "x/c.png", "y/c.png", "1.png", "01.gif"])
    labels = pd.DataFrame({"picture": ["a", "b"], "y": [1, 2]})
    with pytest.raises(
        DataError, match="'picture' can mean several pictures: 'a' can be a.jpg or a.png. Write names with their ending"
    ):
        label_pictures(folder, labels)
    with pytest.raises(DataError, match="'c.png' can be x/c.png or y/c.png. Write the path below the folder"):
        label_pictures(folder, labels.assign(picture=["c.png", "b.png"]))
    with pytest.raises(DataError, match="'001' can be 01.gif or 1.png"):
        label_pictures(folder, labels.assign(picture=["001", "b"]))
    found = label_pictures(folder, labels.assign(picture=["a.png", "b"]))
    assert found.frame["y"].dropna().tolist() == [1, 2]


def test_two_rows_for_one_picture(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ["1.png", "2.png"])
    with pytest.raises(DataError, match="names pictures more than once: 1.png. Keep one row"):
        label_pictures(folder, pd.DataFrame({"f": ["1.png", "1.png", "2.png"], "y": [1, 2, 3]}))
    with pytest.raises(DataError, match="more than once: '1.png' and 'x/1.png' for 1.png"):
        label_pictures(folder, pd.DataFrame({"f": ["1.png", "x/1.png", "2.png"], "y": [1, 2, 3]}))


def test_rows_of_another_folder_with_equal_names(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [f"{index}.png" for index in range(30)])
    files = [f"pics/{index}.png" for index in range(30)]
    table = pd.DataFrame({"file": [*files, "test/3.png"], "y": range(31)})
    found = label_pictures(folder, table)
    assert found.frame["y"].tolist() == [float(path.stem) for path in found.images]
    assert any("left out: test/3.png" in note for note in found.notes)
    with pytest.raises(DataError, match="30 of 60 files named in column 'file' are not in"):
        label_pictures(folder, pd.DataFrame({"file": [*files, *[f.replace("pics", "test") for f in files]], "y": range(60)}))


def test_rows_without_a_name(tmp_path: Path) -> None:
    folder, table = numbered(tmp_path)
    found = label_pictures(folder, table.drop(columns="row").assign(file=lambda frame: frame["file"].where(frame.index > 4)))
    assert any("5 rows of labels name no picture (column 'file' is empty there)" in note for note in found.notes)


def test_image_column_is_checked(tmp_path: Path) -> None:
    folder, table = numbered(tmp_path)
    with pytest.raises(DataError, match="--image-column: 'fil' is not a column.*Did you mean 'file'"):
        label_pictures(folder, table, "fil")
    with pytest.raises(DataError, match="column 'shade' names none of the pictures. Its cells are '0.5'"):
        label_pictures(folder, table.assign(shade=0.5), "shade")
    with pytest.raises(DataError, match="Column 'file' names 60 picture files that do not exist: 0.png"):
        open_suite(table, targets="shade", image_column="file")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="Column 'a' names 1 picture files that do not exist"):
        open_suite(tmp_path / "t.csv", targets="b", image_column="a")
    for name in ("cat", "dog"):
        folder_of(tmp_path / "classes", [f"{name}/1.png"])
    with pytest.raises(DataError, match="has none. Add --labels"):
        label_pictures(tmp_path / "classes" / "pics", None, "file")


def test_a_long_table_is_searched_to_its_end(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ["7777.png"])
    table = pd.DataFrame({"file": [f"{index}.png" for index in range(9000)], "y": np.arange(9000.0)})
    with pytest.raises(DataError, match="8999 of 9000 files named in column 'file' are not in"):
        label_pictures(folder, table)


def test_image_column_in_a_suite_file(tmp_path: Path) -> None:
    folder, table = numbered(tmp_path)
    table["id"] = table.pop("file").str.removesuffix(".png")
    table.to_csv(tmp_path / "labels.csv", index=False)
    text = "datasets:\n- {source: pics, labels: labels.csv, targets: shade, image_column: %s}\n"
    (tmp_path / "suite.yaml").write_text(text % "id")
    suite = open_suite(tmp_path / "suite.yaml")
    np.testing.assert_allclose(suite.inputs["image"][:, 4, 4, 0], suite.targets["shade"][:, 0])
    (tmp_path / "suite.yaml").write_text(text % "idd")
    with pytest.raises(ConfigError, match="no column 'idd'.*Did you mean 'id'"):
        open_suite(tmp_path / "suite.yaml")
    (tmp_path / "suite.yaml").write_text("modality: table\ndatasets:\n- {source: labels.csv, targets: shade, image_column: id}\n")
    with pytest.raises(ConfigError, match="'image_column' belongs to modality image"):
        open_suite(tmp_path / "suite.yaml")
    assert folder.is_dir()


def test_a_label_file_that_leads_out_of_the_folder(tmp_path: Path) -> None:
    folder, table = numbered(tmp_path)
    table.to_csv(tmp_path / "secret.csv", index=False)
    os.symlink(tmp_path / "secret.csv", folder / "labels.csv")
    with pytest.raises(DataError, match="link to a file outside of the folder.*--labels"):
        label_pictures(folder, None)
    (folder / "labels.csv").unlink()
    table.to_csv(folder / "labels.csv", index=False)
    assert label_pictures(folder, None).columns == ("file",)
