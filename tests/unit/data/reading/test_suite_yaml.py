from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from graftwork.core.errors import ConfigError, DataError, FileFormatError
from graftwork.data.encoders import encoder_from_state
from graftwork.data.reading.ingest import open_suite
from graftwork.data.reading.suite_yaml import read_suite_yaml, validate_suite_yaml

GOOD = """\
name: shop
mixing: temperature
temperature: 3
datasets:
  - name: web
    source: web.csv
    group: user
    credit: CC0
    targets:
      stars: {kind: ordinal, metric: quadratic_kappa}
      price:
      tags: {columns: [x, y]}
  - name: phone
    source: phone.jsonl
    domain: store
    ignore: [row]
    targets:
      stars:
      sold: binary
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    web = pd.DataFrame(
        {
            "user": [f"u{index // 3}" for index in range(60)],
            "age": generator.normal(40, 9, 60),
            "stars": generator.integers(1, 6, 60),
            "price": generator.normal(size=60),
            "x": generator.integers(0, 2, 60),
            "y": generator.integers(0, 2, 60),
            "city": generator.choice(["a", "b"], 60),
        }
    )
    web.to_csv(tmp_path / "web.csv", index=False)
    phone = pd.DataFrame(
        {
            "row": generator.normal(size=30),
            "age": generator.normal(50, 9, 30),
            "stars": generator.integers(1, 6, 30),
            "sold": generator.choice(["yes", "no"], 30),
            "price": generator.normal(size=30),
            "floor": generator.integers(0, 9, 30),
        }
    )
    phone.to_json(tmp_path / "phone.jsonl", orient="records", lines=True)
    (tmp_path / "suite.yaml").write_text(GOOD)
    return tmp_path


def test_several_data_sets_become_one_suite(folder: Path) -> None:
    assert validate_suite_yaml(folder / "suite.yaml") == []
    suite = open_suite(folder / "suite.yaml")
    assert (suite.name, suite.kinds, len(suite)) == ("shop", ("table",), 90)
    assert suite.task_names == ("stars", "price", "tags", "sold")
    assert suite.domains == ("web", "store")
    assert suite.domain is not None
    assert suite.domain.tolist() == [0] * 60 + [1] * 30
    assert suite.raw["mixing"] == 3.0
    assert suite.task("stars").metric == "quadratic_kappa"
    assert (suite.targets["stars"] >= 0).all(), "the same target name is one shared head"
    assert np.isnan(suite.targets["price"][60:]).all(), "what a data set lacks is missing"
    assert np.isnan(suite.targets["tags"][60:]).all()
    assert (suite.targets["sold"][:60] == -1).all()
    assert set(suite.targets["sold"][60:].tolist()) == {0, 1}
    assert suite.credits == {"web": "CC0"}
    assert set(suite.sources) == {"suite.yaml", "web: web.csv", "phone: phone.jsonl"}
    features = {column["name"] for column in suite.only_input.encoder["columns"]}
    assert features == {"age", "city", "floor"}, "targets of any data set, the group and ignored columns are no features"
    assert suite.groups is not None
    assert len(np.unique(suite.groups)) == 20 + 30, "rows of a data set without groups are groups of their own"
    for rows in suite.splits.values():
        assert {0, 1} <= set(suite.domain[rows].tolist()), "every domain is in every part"
    assert any("mixing temperature 3" in note and "Shared heads: stars" in note for note in suite.notes)
    web = pd.read_csv(folder / "web.csv").assign(floor=np.nan)
    encoded = encoder_from_state(suite.only_input.encoder).transform(web)
    np.testing.assert_allclose(encoded["numeric"], suite.inputs["numeric"][:60])


def test_a_target_under_another_name_meets_a_feature_of_that_name(folder: Path) -> None:
    (folder / "suite.yaml").write_text(
        "datasets:\n- {source: web.csv, targets: {floor: {columns: age}}}\n- {source: phone.jsonl, targets: [stars]}\n"
    )
    suite = open_suite(folder / "suite.yaml")
    assert np.isnan(suite.targets["floor"][60:]).all(), "the feature `floor` of the other data set is not taken for the target"


def test_short_forms(folder: Path) -> None:
    (folder / "suite.yaml").write_text("datasets:\n- source: web.csv\n  targets: [stars, 'both=x+y']\n")
    file = read_suite_yaml(folder / "suite.yaml")
    assert (file.mixing, file.name, file.kinds) == ("proportional", folder.name, ("table",))
    assert [(target.name, target.columns) for target in file.datasets[0].targets] == [("stars", ("stars",)), ("both", ("x", "y"))]
    assert open_suite(folder / "suite.yaml").task("both").kind == "multilabel"
    (folder / "suite.yaml").write_text("mixing: 4\nseed: 9\ndatasets:\n- source: web.csv\n  targets: stars\n")
    file = read_suite_yaml(folder / "suite.yaml")
    assert (file.mixing, file.seed) == (4.0, 9)


def test_everything_wrong_is_listed_at_once(folder: Path) -> None:
    text = """\
nam: shop
mixing: proportionl
temperature: 2
image_size: big
datasets:
  - name: web
    source: webb.csv
    targets: {stars: {kind: ordnal}}
  - name: web
    source: web.csv
    group: usr
    targts: [stars]
    targets:
      strs:
      price: {metrik: rmse}
      stars: {kind: ordinal}
  - source: phone.jsonl
    targets:
      stars: {kind: regression}
  - [1, 2]
"""
    (folder / "suite.yaml").write_text(text)
    problems = validate_suite_yaml(folder / "suite.yaml")
    shown = [str(problem) for problem in problems]
    expected = [
        "line 1, nam: unknown key 'nam'. Did you mean 'name'? Allowed are name, modality",
        "line 2, mixing: must be one of proportional, uniform, balanced, round-robin, temperature; got "
        "'proportionl'. Did you mean 'proportional'?",
        "line 3, temperature: is used only with mixing: temperature",
        "line 4, image_size: must be a whole number from 8 to 1024; got 'big'.",
        "line 7, datasets[0].source: 'webb.csv' does not exist beside suite.yaml. Did you mean 'web.csv'?",
        "line 8, datasets[0].targets.stars.kind: must be one of binary, embedding, multiclass, multilabel, "
        "ordinal, ranking, regression, sequence, survival; got 'ordnal'. Did you mean 'ordinal'?",
        "line 9, datasets[1].name: two data sets are called 'web'",
        "line 11, datasets[1].group: the data set has no column 'usr'. Did you mean 'user'? Its columns are user, age",
        "line 12, datasets[1].targts: unknown key 'targts'. Did you mean 'targets'?",
        "line 14, datasets[1].targets.strs: the data set has no column 'strs'. Did you mean 'stars'?",
        "line 15, datasets[1].targets.price.metrik: unknown key 'metrik'. Did you mean 'metric'?",
        "line 16, datasets[1].targets.stars.kind: is 'ordinal' here but 'ordnal' in datasets[0]",
        "line 19, datasets[2].targets.stars.kind: is 'regression' here but 'ordnal' in datasets[0]",
        "line 20, datasets[3]: must be a mapping with the keys name, source",
    ]
    assert len(shown) == len(expected), "\n".join(shown)
    for line, start in zip(shown, expected, strict=True):
        assert line.startswith(f"suite.yaml, {start}"), line
    assert [problem.line for problem in problems] == sorted(problem.line for problem in problems)
    with pytest.raises(ConfigError, match=r"(?s)has 14 problems.*line 1, nam.*line 20") as caught:
        open_suite(folder / "suite.yaml")
    assert len(caught.value.problems) == 14


SYNTAX = [
    ("duplicated key", "datasets: []\nname: a\nname: b\n", "line 3, name: given twice, first in line 2"),
    ("tab", "datasets:\n\t- a\n", "line 2, (YAML):"),
    ("code", "name: !!python/object/apply:os.system [ls]\ndatasets: []\n", "line 1, (YAML): could not determine a constructor"),
    ("open bracket", "datasets: [\n", "(YAML):"),
    ("scalar", "hello\n", "line 1, (document): must be a mapping"),
    ("no data sets", "name: a\n", "line 1, (document): the key 'datasets' is missing"),
    ("empty list", "datasets: []\n", "line 1, datasets: must be a list with at least one data set; got []"),
    (
        "no targets",
        "datasets:\n- {source: web.csv, targets: {}}\n",
        "line 2, datasets[0].targets: must name at least one target in one of the data sets; got nothing",
    ),
    ("missing keys", "datasets:\n- {name: a}\n", "line 2, datasets[0]: the key 'source' is missing"),
    ("itself", "datasets: &a\n- *a\n", "refers to itself"),
    (
        "bad temperature",
        "mixing: 0.5\ndatasets:\n- {source: web.csv, targets: a}\n",
        "line 1, mixing: must be a number from 1 to 1000; got 0.5",
    ),
]


@pytest.mark.parametrize(("text", "message"), [row[1:] for row in SYNTAX], ids=[row[0] for row in SYNTAX])
def test_syntax(folder: Path, text: str, message: str) -> None:
    (folder / "suite.yaml").write_text(text)
    assert any(message in str(problem) for problem in validate_suite_yaml(folder / "suite.yaml"))


def test_files_that_are_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="does not exist"):
        validate_suite_yaml(tmp_path / "suite.yaml")
    (tmp_path / "suite.yaml").write_text("# nothing\n")
    with pytest.raises(FileFormatError, match="is empty.*datasets"):
        validate_suite_yaml(tmp_path / "suite.yaml")
    (tmp_path / "suite.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(FileFormatError, match="byte 0xe9 at offset 9"):
        validate_suite_yaml(tmp_path / "suite.yaml")
    (tmp_path / "suite.yaml").write_bytes(b"\x80\x04\x95abc")
    with pytest.raises(FileFormatError, match="a Python pickle"):
        validate_suite_yaml(tmp_path / "suite.yaml")


def test_nested_aliases_do_not_explode(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    lines += [f"a{index}: &a{index} [{', '.join([f'*a{index - 1}'] * 8)}]" for index in range(1, 30)]
    (tmp_path / "suite.yaml").write_text("\n".join([*lines, "datasets: *a29", "name: *a29"]))
    problems = validate_suite_yaml(tmp_path / "suite.yaml")
    assert ["by aliases" in problem.message for problem in problems] == [True]


BOMB = ["a0: &a0 [x, x]", *(f"a{index}: &a{index} [{', '.join([f'*a{index - 1}'] * 10)}]" for index in range(1, 30))]
MERGES = [
    "a0: &a0 {x: 1}",
    *(f"a{index}: &a{index} {{<<: [*a{index - 1}, *a{index - 1}], k{index}: 1}}" for index in range(1, 40)),
]


@pytest.mark.parametrize(
    "lines", [[*BOMB, "mixing: *a29"], [*BOMB, "? *a29\n: 1"], [*MERGES, "missing: *a39"], [*BOMB[:9], "modality: *a8"]]
)
def test_bombs_of_aliases_are_refused_in_one_short_line(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "suite.yaml").write_text("\n".join([*lines, "datasets: []"]))
    problems = validate_suite_yaml(tmp_path / "suite.yaml")
    assert len([problem for problem in problems if "by aliases" in str(problem)]) == 1
    assert sum(len(str(problem)) for problem in problems) < 2_000


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("7" * 6_000, "a number of 6,000 digits"),
        ("0x" + "f" * 6_000, "a number of 6,002 digits"),
        ("1:" * 3_000 + "1", "a number of 6,001 digits"),
        ("!!float ''", "cannot be read"),
        ("!!int x", "cannot be read"),
        ("[" * 5_000, "cannot be read: it is nested too deeply"),
        ("\x1b[31m", "cannot be read: unacceptable character"),
    ],
)
def test_odd_values_are_problems_with_few_words(tmp_path: Path, value: str, words: str) -> None:
    (tmp_path / "suite.yaml").write_text(f"seed: {value}\ndatasets: []\n")
    (problem,) = validate_suite_yaml(tmp_path / "suite.yaml")
    assert words in str(problem)
    assert len(str(problem)) < 500


def test_a_name_that_is_too_long_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(f"datasets:\n  - source: {'a' * 300}.csv\n    targets: [x]\n")
    assert any("does not exist beside suite.yaml" in str(problem) for problem in validate_suite_yaml(tmp_path / "suite.yaml"))


def test_text_and_image_data_sets(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        texts = [" ".join(generator.choice(["red", "green", "blue"], 5)) for _ in range(30)]
        pd.DataFrame({"body": texts, "stars": generator.integers(1, 6, 30)}).to_csv(tmp_path / f"{name}.csv", index=False)
        (tmp_path / f"pics_{name}" / "dark").mkdir(parents=True)
        (tmp_path / f"pics_{name}" / "light").mkdir()
        for index in range(20):
            kind = "dark" if index % 2 else "light"
            Image.new("RGB", (8, 8), (index if kind == "dark" else 255 - index,) * 3).save(
                tmp_path / f"pics_{name}" / kind / f"{index}.png"
            )
    (tmp_path / "text.yaml").write_text(
        "datasets:\n- {source: a.csv, text: body, targets: stars}\n- {source: b.csv, text: body, targets: "
        "{rating: {columns: stars}}}\n"
    )
    suite = open_suite(tmp_path / "text.yaml")
    assert (suite.kinds, suite.task_names, len(suite)) == (("text",), ("stars", "rating"), 60)
    encoded = encoder_from_state(suite.only_input.encoder).transform(pd.read_csv(tmp_path / "a.csv"))
    np.testing.assert_array_equal(encoded["tokens"], suite.inputs["tokens"][:30])
    (tmp_path / "image.yaml").write_text(
        "image_size: 16\nmixing: uniform\ndatasets:\n- {source: pics_a, targets: category}\n- {source: "
        "pics_b, targets: category}\n"
    )
    suite = open_suite(tmp_path / "image.yaml")
    assert (suite.kinds, suite.inputs["image"].shape) == (("image",), (40, 16, 16, 3))
    assert suite.task("category").classes == ("dark", "light")
    assert suite.raw["labels"][0].startswith("pics_a ")
    (tmp_path / "mixed.yaml").write_text("datasets:\n- {source: pics_a, targets: category}\n- {source: b.csv, targets: stars}\n")
    with pytest.raises(ConfigError, match="modality table \\+ image.*\n.*data set 'b': b.csv is a file"):
        open_suite(tmp_path / "mixed.yaml")


def test_errors_name_the_data_set(folder: Path) -> None:
    (folder / "phone.jsonl").write_text('{"stars": 1')
    with pytest.raises(FileFormatError, match="Data set 'phone' of suite.yaml: .*line 1 is not one JSON object"):
        open_suite(folder / "suite.yaml")
    (folder / "phone.jsonl").write_text('{"star": 1, "row": 2}\n')
    with pytest.raises(DataError, match="datasets: phone: 'stars' is not a column"):
        open_suite(folder / "suite.yaml")
    (folder / "suite.yaml").write_text(
        "datasets:\n- {source: web.csv, targets: {v: {columns: [age, price]}}}\n- {name: w, source: web.csv, "
        "targets: {v: {columns: age}}}\n"
    )
    with pytest.raises(ConfigError, match="target 'v' has 1 columns in data set 'w' but 2 elsewhere"):
        open_suite(folder / "suite.yaml")
    with pytest.raises(DataError, match="describes its own data, so targets cannot be set"):
        open_suite(folder / "suite.yaml", targets="v")


def test_validating_imports_no_heavy_package(folder: Path) -> None:
    code = (
        "import sys; from graftwork.data.reading.suite_yaml import validate_suite_yaml as check;"
        f"print(len(check({str(folder / 'suite.yaml')!r})), sorted({{'torch', 'pandas', 'numpy', 'pyarrow', "
        f"'PIL'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split(" ", 1) == ["0", "[]\n"]
