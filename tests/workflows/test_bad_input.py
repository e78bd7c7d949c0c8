"""Bad data, one row a case: the message says what is wrong, which value, what is allowed and what to do, and nothing written is
lost."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import graftwork
from graftwork.core.errors import GraftworkError
from graftwork.data.reading.ingest import open_suite

ROWS = 40


class Trap:
    """Creates a file if it is ever unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("unpickled"),))


def good() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": generator.normal(40, 9, ROWS).round(1),
            "city": generator.choice(["a", "b", "c"], ROWS),
            "stars": generator.integers(1, 6, ROWS),
            "price": generator.normal(size=ROWS).round(3),
        }
    )


def csv(folder: Path, **columns: Any) -> None:
    good().assign(**columns).to_csv(folder / "table.csv", index=False)


def raw(folder: Path, content: bytes | str, name: str = "table.csv") -> None:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def archive(folder: Path) -> None:
    with zipfile.ZipFile(folder / "table.csv", "w") as target:
        target.writestr("inner.csv", "a\n1\n")


def cut_parquet(folder: Path) -> None:
    good().to_parquet(folder / "table.parquet")
    whole = (folder / "table.parquet").read_bytes()
    (folder / "table.parquet").write_bytes(whole[: len(whole) // 2])


def images(folder: Path, *, broken: bool = False, labels: str = "picture,kind\n") -> None:
    (folder / "pics").mkdir()
    for index in range(12):
        Image.new("RGB", (16, 16), (index * 20, 0, 0)).save(folder / "pics" / f"p{index}.png")
        labels += f"p{index}.png,{'ab'[index % 2]}\n"
    if broken:
        whole = (folder / "pics" / "p0.png").read_bytes()
        (folder / "pics" / "p1.png").write_bytes(whole[: len(whole) // 2])
        (folder / "pics" / "p2.png").write_bytes(b"")
        (folder / "pics" / "p3.png").write_text("no picture")
    raw(folder, labels, "labels.csv")


def yaml(folder: Path, text: str) -> None:
    csv(folder)
    raw(folder, text, "suite.yaml")


@dataclass(frozen=True)
class Case:
    """One faulty input: how it is made, how it is opened, and what the message must say, in this order."""

    name: str
    make: Callable[[Path], None]
    says: tuple[str, ...]
    source: str = "table.csv"
    options: Mapping[str, Any] = field(default_factory=lambda: {"targets": "stars"})


PRICE = {"targets": "price"}
CASES = [
    Case("YAML metric that does not exist", lambda f: yaml(f, "datasets:\n- source: table.csv\n  targets: "
    "{stars: {metric: acuracy}}\n"), ("Task 'stars'", "no metric 'acuracy'", "Did you mean 'accuracy'"), "suite.yaml", {}),
    Case("YAML metric of another kind", lambda f: yaml(f, "datasets:\n- source: table.csv\n  targets: {price: "
    "{metric: accuracy}}\n"), ("'accuracy' cannot judge a regression", "Choose one of: rmse"), "suite.yaml", {}),
    Case("missing file", lambda f: raw(f, "a\n1\n", "tabel.csv"), ("table.csv does not exist", "Did you mean 'tabel.csv'", r"\.csv, \.tsv")),
    Case("zero bytes", lambda f: raw(f, b""), ("is empty", "zero bytes", "needs a header and rows", "Export it again")),
    Case("header only", lambda f: raw(f, "age,stars\n"), (r"header \(age, stars\) but no rows", "Add rows")),
    Case("wrong encoding", lambda f: raw(f, "age,stars\n1,caf\xe9\n".encode("latin-1")), ("not UTF-8", "0xe9 at offset 15", "line 2", "iconv -f")),
    Case("UTF-16", lambda f: raw(f, "age,stars\n1,2\n".encode("utf-16")), ("not UTF-8", "UTF-16", "iconv -f UTF-16")),
    Case("renamed pickle", lambda f: raw(f, pickle.dumps(Trap())), ("is a Python pickle", "never opens them", "to_parquet")),
    Case("renamed archive", archive, ("called .csv but its content is a zip archive", "Unpack or export")),
    Case("unknown ending", lambda f: raw(f, "a,b\n1,2\n", "table.xlsx"), ("ending '.xlsx'", "none of .csv", "Save the table"), "table.xlsx"),
    Case("truncated parquet", cut_parquet, ("not a whole Parquet file", "truncated", "restore it"), "table.parquet"),
    Case("torn JSON line", lambda f: raw(f, '{"stars": 1}\n{"sta', "t.jsonl"), ("line 2 is not one JSON object", '{"sta', "Repair the line"), "t.jsonl"),
    Case("ragged rows", lambda f: raw(f, "age,stars\n1,2\n3\n"), ("1 rows do not have 2 fields", "line 3 has 1", "repair these lines")),
    Case("duplicated columns", lambda f: raw(f, "age,stars,age\n1,2,3\n"), ("duplicated column names", r"'age' in columns \[1, 3\]", "Rename")),
    Case("no target", csv, ("Say which columns to predict", "--targets a,b", "age, city, stars, price"), options={}),
    Case("misspelt target", csv, ("'strs' is not a column", "Did you mean 'stars'", "age, city, stars, price"), options={"targets": "strs"}),
    Case("misspelt group", csv, ("'citty' is not a column", "Did you mean 'city'"), options={"targets": "stars", "group": "citty"}),
    Case("misspelt kind", csv, ("'ordnal', which does not exist", "Did you mean 'ordinal'", "Allowed are binary", "--task-kind"), options={"targets": "stars", "task_kinds": {"stars": "ordnal"}}),
    Case("kind of no target", csv, ("'price', which is no target", "The targets are: stars"), options={"targets": "stars", "task_kinds": {"price": "regression"}}),
    Case("one class only", lambda f: csv(f, stars="good"), ("'stars' has only one class", "'good' in all 40", "at least two", "Leave it out")),
    Case("all labels missing", lambda f: csv(f, stars=None), ("all 40 labels are missing", "Fill in labels")),
    Case("infinite target", lambda f: csv(f, price=[np.inf, *range(39)]), ("'price' has 1 infinite values", "row 1", "must be finite", "Replace"), options=PRICE),
    Case("mixed types", lambda f: csv(f, price=["many", *range(39)]), ("mixes numbers", "'many'", "--task-kind price=multiclass"), options=PRICE),
    Case("identifier as target", lambda f: csv(f, price=[f"u{i}" for i in range(40)]), ("40 different strings", "identifier", "Choose another column"), options=PRICE),
    Case("words as regression", csv, ("'city' is to be a regression", "'a'", "Make them numbers"), options={"targets": "city", "task_kinds": {"city": "regression"}}),
    Case("two faulty targets", lambda f: csv(f, stars=1, price=None), ("2 targets cannot be used", "'stars' has only one class", "'price': all 40"), options={"targets": "stars,price"}),
    Case("only targets", lambda f: raw(f, "stars\n" + "\n".join("12345" * 4)), ("No feature column is left", "Add columns")),
    Case("too few rows", lambda f: good().head(7).to_csv(f / "table.csv", index=False), ("There are 7 labelled rows", "at least 10", "Add rows")),
    Case("too few groups", csv, ("There are 3 groups", "at least 10", "leave --group out"), options={"targets": "stars", "group": "city"}),
    Case("target as group", csv, ("Column 'stars' is named with --targets and with --group", "Name it once"), options={"targets": "stars", "group": "stars"}),
    Case("broken pictures", lambda f: images(f, broken=True), ("3 of 12 pictures cannot be decoded", r"p1.png \(truncated", r"p2.png \(zero bytes\)", r"p3.png \(not a", "Replace these"), "pics", {"labels": "labels.csv"}),
    Case("labels of other pictures", lambda f: images(f, labels="picture,kind\nq1.png,a\nq2.png,b\n"), ("2 of "
    "14 files named in column 'picture' are not in", "q1.png", "Add the pictures"), "pics", {"labels": "labels.csv"}),
    Case("no labels", images, ("12 pictures but no labels", "--labels labels.csv"), "pics", {}),
    Case("no pictures", lambda f: (f / "pics").mkdir(), ("holds no pictures", r"\.png", "Give the folder"), "pics", {}),
    Case("labels for a table", csv, ("--labels belongs to a folder of pictures", "Leave --labels out"), options={"targets": "stars", "labels": "labels.csv"}),
    Case("misspelt YAML keys", lambda f: yaml(f, "mixng: uniform\ndatasets:\n- source: table.csv\n  targts: stars\n"), ("3 problems", "line 1, mixng: unknown key", "Did you mean 'mixing'", "line 4", "Did you mean 'targets'"), "suite.yaml", {}),
    Case("YAML with code", lambda f: yaml(f, "name: !!python/object/apply:os.system [touch unpickled]\n"), ("line 1", "could not determine a constructor", "Only plain YAML"), "suite.yaml", {}),
    Case("YAML column", lambda f: yaml(f, "datasets:\n- source: table.csv\n  targets: {strs: ordinal}\n"), ("line 3", "no column 'strs'", "Did you mean 'stars'"), "suite.yaml", {}),
]  # fmt: skip


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_bad_input(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    case.make(tmp_path)
    earlier, empty = tmp_path / "earlier", tmp_path / "empty"
    (earlier / "model").mkdir(parents=True)
    (earlier / "result.json").write_text('{"format": "graftwork-fit-1"}')
    (earlier / "model" / "model.safetensors").write_bytes(b"weights")
    empty.mkdir()
    before = digest(tmp_path)
    fixed = {"workers": 0, "steps": 8, "seeds": 1, **case.options}
    for out in (empty, tmp_path / "new"):
        with pytest.raises(GraftworkError, match="(?s)" + ".*".join(case.says)):
            graftwork.fit(case.source, out=out, **fixed)
    with pytest.raises(GraftworkError, match="earlier is not empty and is not a run of graftwork"):
        graftwork.fit(case.source, out=earlier, **fixed)
    assert digest(tmp_path) == before, "what was there before is whole, and nothing was added"
    assert list(empty.iterdir()) == []
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "unpickled").exists(), "nothing of the file was run"


def test_the_same_data_without_faults_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    csv(tmp_path)
    assert open_suite("table.csv", targets="stars,price").task_names == ("stars", "price")
    images(tmp_path)
    assert open_suite("pics", labels="labels.csv").task_names == ("kind",)
    yaml(tmp_path, "mixing: uniform\ndatasets:\n- source: table.csv\n  targets: stars\n")
    assert open_suite("suite.yaml").task_names == ("stars",)
