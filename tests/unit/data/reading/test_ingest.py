from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from graftwork.core.errors import ConfigError, DataError, FileFormatError
from graftwork.data.encoders import encoder_from_state
from graftwork.data.reading.ingest import open_suite
from graftwork.data.reading.picture_size import default_image_size
from graftwork.data.store import save_suite
from graftwork.data.suites import EMBEDDED, load_embedded

N = 120


def table(seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": generator.normal(40, 10, N).round(1),
            "city": generator.choice(["a", "b", "c"], N),
            "patient": [f"p{index // 5}" for index in range(N)],
            "stars": generator.integers(1, 6, N),
            "price": generator.normal(size=N),
            "body": [" ".join(generator.choice(["good", "bad", "fine", "dull", "great"], 6)) for _ in range(N)],
        }
    )
    frame.loc[::4, "price"] = np.nan
    return frame


def pictures(folder: Path, number: int = 30) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(number):
        name = f"{'sub/' if index % 2 else ''}pic{index:03d}.png"
        shade = generator.integers(0, 256)
        noise = generator.integers(0, 20, (20, 16, 3))
        Image.fromarray(np.clip(shade + noise, 0, 255).astype(np.uint8)).save(folder / name)
        rows.append({"who": f"u{index // 2}", "picture": name, "shade": float(shade), "dark": "yes" if shade < 128 else "no"})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_table_files(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"shop.{ending}"
    frame = table()
    if ending == "csv":
        frame.to_csv(path, index=False)
    elif ending == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True)
    suite = open_suite(path, targets="stars,price", group="patient")
    assert (suite.name, suite.kinds, suite.task_names) == ("shop", ("table",), ("stars", "price"))
    assert suite.task("stars").kind == "ordinal"
    assert suite.only_input.sizes["num_numeric"] == suite.inputs["numeric"].shape[1]
    assert suite.sources.keys() == {path.name}
    assert suite.groups is not None
    assert any("Target 'stars' is read as ordinal with 5 classes" in note for note in suite.notes)
    assert any("Target 'price': 30 of 120 labels are missing" in note for note in suite.notes)
    assert suite.raw["reasons"]["price"].startswith("numbers with")
    encoded = encoder_from_state(suite.only_input.encoder).transform(pd.read_csv(path) if ending == "csv" else frame)
    np.testing.assert_array_equal(encoded["numeric"], suite.inputs["numeric"])
    np.testing.assert_array_equal(encoded["categorical"], suite.inputs["categorical"])
    same = open_suite(path, targets="stars,price", group="patient")
    assert same.fingerprint() == suite.fingerprint()
    assert open_suite(path, targets="stars,price", group="patient", seed=1).fingerprint() != suite.fingerprint()


def test_targets_and_groups_are_no_features() -> None:
    suite = open_suite(table(), targets=["stars"], group="patient")
    names = [column["name"] for column in suite.only_input.encoder["columns"]]
    assert "stars" not in names
    assert "patient" not in names
    assert {"age", "city", "price"} <= set(names)


def test_centre_and_scale_come_from_training_rows() -> None:
    suite = open_suite(table(), targets=["price"])
    train = suite.targets["price"][suite.splits["train"]]
    assert suite.task("price").center[0] == pytest.approx(np.nanmean(train), rel=1e-5)
    assert suite.task("price").scale[0] == pytest.approx(np.nanstd(train), rel=1e-5)


def test_text() -> None:
    suite = open_suite(table(), targets="stars", text="body")
    assert (suite.kinds, suite.inputs["tokens"].shape) == (("table", "text"), (N, 64))
    assert suite.raw["text"][0] == table()["body"][0]
    assert suite.input_specs["text"].sizes["vocabulary_size"] > 5
    assert any("'patient' looks like a group" in note for note in suite.notes)
    two = open_suite(table(), targets="stars", text="body+city")
    assert two.input_specs["text"].encoder["columns"] == ["body", "city"]


def test_frame_in_is_not_changed() -> None:
    frame = table()
    before = frame.copy()
    open_suite(frame, targets={"value": "price"}, group="patient")
    pd.testing.assert_frame_equal(frame, before)


def test_frame_with_odd_index_and_names() -> None:
    frame = table().set_index(pd.Index(range(1000, 1000 + N)))
    frame.columns = [*frame.columns[:-1], 7]  # type: ignore[list-item]
    suite = open_suite(frame, targets="stars")
    assert len(suite) == N


def test_ready_and_stored_suites(tmp_path: Path) -> None:
    suite = open_suite(table(), targets="stars,price")
    assert open_suite(suite) is suite
    assert open_suite(suite, targets="price").task_names == ("price",)
    save_suite(suite, tmp_path / "s")
    assert open_suite(tmp_path / "s").fingerprint() == suite.fingerprint()
    with pytest.raises(DataError, match="'pric' is not a column.*Did you mean 'price'"):
        open_suite(suite, targets="pric")
    with pytest.raises(DataError, match="describes its own data, so group cannot be set"):
        open_suite(suite, group="x")


def test_embedded() -> None:
    suite = open_suite("related", targets="task_1,task_2")
    assert suite.task_names == ("task_1", "task_2")
    assert set(EMBEDDED) >= {"emoji", "conflicting", "related"}
    with pytest.raises(DataError, match="no embedded suite 'emojy'. Did you mean 'emoji'"):
        load_embedded("emojy")
    with pytest.raises(ConfigError, match="'related' has no option 'row'"):
        load_embedded("related", row=5)


@pytest.mark.parametrize("name", list(EMBEDDED))
def test_every_embedded_name_leads_to_a_function(name: str) -> None:
    module, _, function = EMBEDDED[name].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_pictures_with_labels(tmp_path: Path) -> None:
    frame = pictures(tmp_path / "pics")
    frame.to_csv(tmp_path / "marks.csv", index=False)
    suite = open_suite(tmp_path / "pics", labels=tmp_path / "marks.csv", group="who")
    assert (suite.name, suite.kinds, suite.task_names) == ("pics", ("image",), ("shade", "dark"))
    assert suite.inputs["image"].shape == (30, 32, 32, 3), "small pictures are encoded at 32 pixels"
    assert suite.raw["labels"][0] == "pic000.png"
    shades = frame.set_index("picture")["shade"]
    np.testing.assert_allclose(suite.targets["shade"][:, 0], [shades[name] for name in suite.raw["labels"]])
    middle = suite.inputs["image"][:, 16, 16].mean(axis=1)
    assert np.corrcoef(middle, suite.targets["shade"][:, 0])[0, 1] > 0.98, "labels belong to their pictures"
    assert set(suite.sources) == {"pics (30 pictures)", "marks.csv"}
    again = encoder_from_state(suite.only_input.encoder).transform([tmp_path / "pics" / name for name in suite.raw["labels"]])
    np.testing.assert_array_equal(again["image"], suite.inputs["image"])
    assert open_suite(tmp_path / "pics", labels=frame, targets="dark", image_size=16).inputs["image"].shape[1] == 16


@pytest.mark.parametrize("form", ["stem", "name", "folder"])
def test_how_labels_may_call_pictures(tmp_path: Path, form: str) -> None:
    frame = pictures(tmp_path / "pics")
    change = {"stem": lambda name: Path(name).stem, "name": lambda name: Path(name).name, "folder": lambda name: f"pics/{name}"}[
        form
    ]
    frame["picture"] = frame["picture"].map(change)
    frame.sample(frac=1.0, random_state=0).to_csv(tmp_path / "pics" / "labels.csv", index=False)
    suite = open_suite(tmp_path / "pics", targets="shade")
    assert np.corrcoef(suite.inputs["image"][:, 16, 16].mean(axis=1), suite.targets["shade"][:, 0])[0, 1] > 0.98
    assert "Labels are read from labels.csv inside the folder." in suite.notes


def test_pictures_without_a_row_and_rows_without_a_picture(tmp_path: Path) -> None:
    frame = pictures(tmp_path / "pics")
    extra = pd.DataFrame([{"who": "x", "picture": "gone.png", "shade": 1.0, "dark": "yes"}])
    suite = open_suite(tmp_path / "pics", labels=pd.concat([frame.iloc[3:], extra], ignore_index=True), targets="dark")
    assert (suite.targets["dark"] == -1).sum() == 3
    text = "\n".join(suite.notes)
    assert "Labels of 1 pictures that are not in the folder are left out: gone.png." in text
    assert "3 of 30 pictures have no row in the labels" in text


def test_class_folders(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(8):
            Image.new("RGB", (8, 8), (index * 9, 0, 200 if name == "dog" else 0)).save(tmp_path / name / f"{index}.png")
    suite = open_suite(tmp_path)
    assert suite.task("category").classes == ("cat", "dog")
    assert suite.targets["category"].tolist() == [0] * 8 + [1] * 8


def test_label_faults(tmp_path: Path) -> None:
    frame = pictures(tmp_path / "pics")
    with pytest.raises(DataError, match="30 pictures but no labels.*--labels labels.csv"):
        (tmp_path / "flat").mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / "flat" / "a.png")
        pictures(tmp_path / "flat", 29)
        for path in (tmp_path / "flat" / "sub").iterdir():
            path.rename(tmp_path / "flat" / path.name)
        open_suite(tmp_path / "flat")
    with pytest.raises(DataError, match="no column names the pictures.*file names such as"):
        open_suite(tmp_path / "pics", labels=frame.drop(columns="picture"))
    with pytest.raises(DataError, match="'picture' names pictures more than once: pic000.png"):
        open_suite(tmp_path / "pics", labels=pd.concat([frame, frame.iloc[:1]], ignore_index=True))
    wrong = frame.assign(picture=[f"x{name}" if index < 10 else name for index, name in enumerate(frame["picture"])])
    with pytest.raises(DataError, match="10 of 30 files named in column 'picture' are not in .*Did you mean 'pic000.png'"):
        open_suite(tmp_path / "pics", labels=wrong)
    with pytest.raises(DataError, match="--labels belongs to a folder of pictures"):
        frame.to_csv(tmp_path / "t.csv", index=False)
        open_suite(tmp_path / "t.csv", labels="x.csv", targets="dark")


def test_source_faults(tmp_path: Path) -> None:
    table().to_csv(tmp_path / "shop.csv", index=False)
    with pytest.raises(FileFormatError, match=r"shp.csv does not exist. Did you mean 'shop.csv'\?.*embedded suites: emoji"):
        open_suite(tmp_path / "shp.csv", targets="stars")
    with pytest.raises(DataError, match="Say which columns to predict.*columns of shop are: age, city"):
        open_suite(tmp_path / "shop.csv")
    with pytest.raises(DataError, match="'strs' is not a column of the table. Did you mean 'stars'"):
        open_suite(tmp_path / "shop.csv", targets="strs")
    with pytest.raises(DataError, match="--group: 'patinet' is not a column.*'patient'"):
        open_suite(tmp_path / "shop.csv", targets="stars", group="patinet")
    with pytest.raises(DataError, match="--text: 'bdy' is not a column.*'body'"):
        open_suite(tmp_path / "shop.csv", targets="stars", text="bdy")
    with pytest.raises(DataError, match="'stars' is named with --targets and with --group"):
        open_suite(tmp_path / "shop.csv", targets="stars", group="stars")
    with pytest.raises(DataError, match="No feature column is left besides the targets"):
        open_suite(table()[["stars", "price"]], targets="stars,price")
    with pytest.raises(DataError, match="got int"):
        open_suite(5, targets="a")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no rows"):
        open_suite(table().iloc[:0], targets="stars")
    with pytest.raises(DataError, match="There are 8 labelled rows"):
        open_suite(table().iloc[:8], targets="stars")


@pytest.mark.parametrize(("side", "size"), [(20, 32), (72, 64), (130, 128), (200, 160), (300, 224)])
def test_pictures_are_stored_as_fine_as_they_are_up_to_224_pixels(tmp_path: Path, side: int, size: int) -> None:
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file in files:
        Image.new("RGB", (side + 10, side)).save(file)
    assert default_image_size(files) == size


def test_many_pictures_are_stored_smaller(tmp_path: Path) -> None:
    file = tmp_path / "one.png"
    Image.new("RGB", (300, 300)).save(file)
    # 4,000 pictures of 224 pixels would be 602 MB.
    assert [default_image_size([file] * count) for count in (3_900, 4_000, 8_000, 60_000)] == [224, 160, 128, 64]
