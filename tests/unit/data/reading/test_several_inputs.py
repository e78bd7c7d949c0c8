"""Tables with text and picture columns as one suite: each column is read by what it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.input_spec import read_input_specs, write_input_specs
from graftwork.data.encoders.joint import JointEncoder, encoder_of_inputs
from graftwork.data.reading.ingest import open_suite
from graftwork.data.reading.picture_cells import picture_paths
from graftwork.data.store import load_suite, save_suite

ROWS = 60


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Return a table of offers: numbers, a category, a text, a picture (some have none), two targets."""
    random = np.random.default_rng(0)
    (tmp_path / "pics").mkdir()
    rows = []
    for row in range(ROWS):
        shade = 4 * row
        if row % 9:
            Image.new("RGB", (12, 10), (shade, shade, shade)).save(tmp_path / "pics" / f"{row}.png")
        rows.append(
            {
                "photo": f"pics/{row}.png" if row % 9 else "",
                "title": random.choice(["red shoe", "blue shoe", "green hat"]),
                "size": random.normal(),
                "city": random.choice(["Oslo", "Rome"]),
                "price": shade / 10 + random.normal(),
                "sold": random.choice(["yes", "no"]),
            }
        )
    pd.DataFrame(rows).to_csv(tmp_path / "shop.csv", index=False)
    return tmp_path / "shop.csv"


def test_each_column_is_read_by_what_it_is(shop: Path) -> None:
    suite = open_suite(shop, targets="price,sold", text="title", image_column="photo", image_size=8)
    assert suite.kinds == ("table", "text", "image")
    assert {name: spec.kind for name, spec in suite.input_specs.items()} == {"table": "table", "text": "text", "image": "image"}
    assert set(suite.inputs) == {"numeric", "categorical", "tokens", "image"}
    names = [column["name"] for column in suite.input_specs["table"].encoder["columns"]]
    assert sorted(names) == ["city", "size"], "neither the text nor the picture is a column of the table, and no target is"
    shades = suite.inputs["image"][:, 4, 4, 0]
    has_picture = np.arange(ROWS) % 9 > 0
    np.testing.assert_array_equal(shades[has_picture], (4 * np.arange(ROWS))[has_picture])
    assert (shades[~has_picture] == 255).all(), "a row without a picture sees background"
    assert any("7 of 60 rows have no picture in column 'photo'" in note for note in suite.notes)
    assert any("2 columns are learned from: size, city" in note for note in suite.notes)
    assert "photo (53 pictures)" in suite.sources


def test_a_changed_picture_is_another_source(shop: Path) -> None:
    before = open_suite(shop, targets="price", image_column="photo", image_size=8)
    Image.new("RGB", (12, 10), (1, 2, 3)).save(shop.parent / "pics" / "5.png")
    after = open_suite(shop, targets="price", image_column="photo", image_size=8)
    assert before.sources["photo (53 pictures)"] != after.sources["photo (53 pictures)"]
    assert before.fingerprint() != after.fingerprint()


def test_columns_that_are_ignored_are_not_learned_from(shop: Path) -> None:
    suite = open_suite(shop, targets="price", text="title", ignore="photo,size,city,sold")
    assert (suite.kinds, set(suite.inputs)) == (("text",), {"tokens"})
    table = open_suite(shop, targets="price", ignore=["photo", "title", "city"])
    assert sorted(column["name"] for column in table.only_input.encoder["columns"]) == ["size", "sold"]
    with pytest.raises(DataError, match="--ignore: 'cty' is not a column of the table. Did you mean 'city'"):
        open_suite(shop, targets="price", ignore="cty")
    with pytest.raises(DataError, match="Column 'price' is named with --targets and with --ignore"):
        open_suite(shop, targets="price", ignore="price")
    with pytest.raises(DataError, match="Column 'title' is named with --text and with --image-column"):
        open_suite(shop, targets="price", text="title", image_column="title")


def test_new_rows_are_encoded_as_in_training(shop: Path, tmp_path: Path) -> None:
    suite = open_suite(shop, targets="price,sold", text="title", image_column="photo", image_size=8)
    specs = read_input_specs(json.loads(json.dumps({"input_specs": write_input_specs(suite.input_specs)})))
    encoder = encoder_of_inputs(specs)
    assert isinstance(encoder, JointEncoder)
    assert encoder.picture_columns == ("photo",)
    frame = pd.read_csv(shop)
    frame["photo"] = [None if pd.isna(cell) else shop.parent / cell for cell in frame["photo"]]
    for name, array in encoder.transform(frame).items():
        np.testing.assert_array_equal(array, suite.inputs[name])
    with pytest.raises(DataError, match="The text column: 'title' is not a column"):
        encoder.transform(frame.drop(columns="title"))
    with pytest.raises(DataError, match="The picture column: 'photo' is not a column"):
        encoder.transform(frame.drop(columns="photo"))
    with pytest.raises(DataError, match="are read from a table; got list"):
        encoder.transform(["a"])


def test_the_stored_suite_is_the_same(shop: Path, tmp_path: Path) -> None:
    suite = open_suite(shop, targets="price", text="title", image_column="photo", image_size=8)
    save_suite(suite, tmp_path / "stored")
    again = load_suite(tmp_path / "stored")
    assert again.fingerprint() == suite.fingerprint()
    assert {name: spec.sizes for name, spec in again.input_specs.items()} == {
        name: dict(spec.sizes) for name, spec in suite.input_specs.items()
    }
    assert {name: spec.arrays for name, spec in again.input_specs.items()} == {
        name: dict(spec.arrays) for name, spec in suite.input_specs.items()
    }


def test_two_pictures_a_row(shop: Path) -> None:
    frame = pd.read_csv(shop)
    frame["back"] = [f"pics/{row % 8 + 1}.png" for row in range(ROWS)]
    frame.to_csv(shop, index=False)
    suite = open_suite(shop, targets="price", image_column="photo,back", ignore="title,size,city,sold", image_size=8)
    assert set(suite.input_specs) == {"image", "image_2"}
    assert set(suite.inputs) == {"image", "image_2.image"}
    own = suite.input_specs["image_2"].own(suite.inputs)
    assert set(own) == {"image"}
    np.testing.assert_array_equal(own["image"][:, 4, 4, 0], 4 * (np.arange(ROWS) % 8 + 1))


def test_one_missing_picture_of_a_hundred_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "pics").mkdir()
    frame = pd.DataFrame({"photo": [f"pics/{row}.png" for row in range(120)], "price": np.linspace(0, 9, 120) ** 2})
    for row in range(120):
        Image.new("RGB", (8, 8), (row, 2 * row, 9)).save(tmp_path / "pics" / f"{row}.png")
    frame.to_csv(tmp_path / "table.csv", index=False)
    options = {"targets": "price", "image_column": "photo", "image_size": 8}
    whole = open_suite(tmp_path / "table.csv", **options)  # type: ignore[arg-type]
    (tmp_path / "pics" / "7.png").unlink()
    suite = open_suite(tmp_path / "table.csv", **options)  # type: ignore[arg-type]
    assert 7 not in np.concatenate(list(suite.splits.values()))
    assert sum(map(len, suite.splits.values())) == 119 == sum(map(len, whole.splits.values())) - 1
    assert any("1 row is skipped" in note and "7.png" in note for note in suite.notes), suite.notes
    assert "photo (119 pictures)" in suite.sources
    with pytest.raises(DataError, match="names 1 picture files that do not exist"):
        open_suite(tmp_path / "table.csv", strict=True, **options)  # type: ignore[arg-type]
    (tmp_path / "pics" / "8.png").unlink()
    with pytest.raises(DataError, match="names 2 picture files that do not exist"):
        open_suite(tmp_path / "table.csv", **options)  # type: ignore[arg-type]


def test_what_names_no_picture_is_refused(shop: Path) -> None:
    long = pd.Series(["a" * 300], name="file")  # no system has a file of this name, and some say so with an error
    with pytest.raises(DataError, match="Column 'file' names 1 picture files that do not exist"):
        picture_paths(long, shop.parent)
    with pytest.raises(DataError, match="Column 'city' names 2 picture files that do not exist: .*Oslo, .*Rome"):
        open_suite(shop, targets="price", image_column="city")
    (shop.parent / "pics" / "3.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="1 of 60 pictures cannot be decoded: pics/3.png"):
        open_suite(shop, targets="price", image_column="photo")
    frame = pd.read_csv(shop)
    frame["photo"] = ""
    frame.to_csv(shop, index=False)
    with pytest.raises(DataError, match="all its cells are empty"):
        open_suite(shop, targets="price", image_column="photo")


def test_suite_files_take_them_together(shop: Path) -> None:
    frame = pd.read_csv(shop)
    frame.drop(columns="city").to_csv(shop.parent / "web.csv", index=False)
    file = shop.parent / "suite.yaml"
    both = "  text: title\n  image_column: photo\n  targets: [price]\n"
    file.write_text(f"image_size: 8\ndatasets:\n- source: shop.csv\n  ignore: [sold]\n{both}- source: web.csv\n{both}")
    suite = open_suite(file)
    assert (suite.kinds, len(suite)) == (("table", "text", "image"), 2 * ROWS)
    encoder = encoder_of_inputs(suite.input_specs)
    assert encoder.picture_columns == ("photo",)
    frame["photo"] = [None if pd.isna(cell) else shop.parent / cell for cell in frame["photo"]]
    for name, array in encoder.transform(frame.drop(columns="sold").assign(sold=None)).items():
        np.testing.assert_array_equal(array, suite.inputs[name][:ROWS])
    file.write_text(f"modality: [text, image]\nimage_size: 8\ndatasets:\n- source: shop.csv\n{both}")
    assert open_suite(file).kinds == ("text", "image")
    file.write_text(f"datasets:\n- source: shop.csv\n{both}- source: web.csv\n  targets: [price]\n  text: title\n")
    with pytest.raises(ConfigError, match="data set 'web': web.csv is a file, and the key 'image_column' is missing"):
        open_suite(file)
    file.write_text("modality: [text, sound]\ndatasets:\n- {source: shop.csv, text: title, targets: [price]}\n")
    with pytest.raises(ConfigError, match="modality: .*'sound'"):
        open_suite(file)
