"""Generated data of the sizes that a user may bring: what is learned from, what is kept back, and how each target is judged.

Everything follows from a seed, so the same case is made anywhere. Targets of one table come from a few hidden factors: they are
related, as the targets of one table usually are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["CASES", "ScaleCase", "Written"]

Array = NDArray[Any]
TEXT = "body"
"""Name of the column with the text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """One case on disk: tables to learn from, and the rows that nobody sees."""

    source: Path
    """What ``graftwork fit`` is given: a Parquet file or a ``suite.yaml``."""
    train: Mapping[str, pd.DataFrame]
    """``{data set: rows}``, inputs and targets."""
    test: Mapping[str, pd.DataFrame]
    """``{data set: rows}`` that are kept back, inputs and targets."""
    targets: Mapping[str, Mapping[str, str]]
    """``{data set: {target: kind}}``; the kind is ``number`` or ``class``."""
    words: tuple[str, ...] = ()
    """Further words of the command line."""

    @property
    def rows(self) -> int:
        """Rows to learn from."""
        return sum(map(len, self.train.values()))


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleCase:
    """One case in its full and in its small size."""

    name: str
    what: str
    write: Callable[..., Written]
    full: Mapping[str, int]
    quick: Mapping[str, int]
    peers: tuple[str, ...] = ("lightgbm", "linear")
    """Names of :mod:`benchmarks.scale.peers`."""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def make(self, folder: Path, *, quick: bool, seed: int = 0) -> Written:
        """Write the case into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        return self.write(folder, seed=seed, **(self.quick if quick else self.full), **self.settings)


def _factors(inputs: Array, hidden: int, generator: np.random.Generator) -> Array:
    """Return smooth and jagged functions of the inputs, ``[rows, hidden]``: what targets are made of."""
    columns = inputs.shape[1]
    informative = min(columns, 40)
    weights = generator.normal(size=(informative, hidden)) / np.sqrt(informative)
    chosen = generator.permutation(columns)[:informative]
    smooth = np.tanh(2.0 * inputs[:, chosen].astype(np.float32) @ weights.astype(np.float32))
    pairs = generator.integers(0, informative, size=(hidden, 2))
    jagged = np.stack([(inputs[:, chosen[a]] > 0.3) * np.sign(inputs[:, chosen[b]]) for a, b in pairs.tolist()], axis=1)
    made: Array = (smooth + 0.7 * jagged).astype(np.float32)
    return made


def _split(frame: pd.DataFrame, kept_back: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return all but the last rows, and these."""
    return frame.iloc[:-kept_back].reset_index(drop=True), frame.iloc[-kept_back:].reset_index(drop=True)


def _one_table(folder: Path, frame: pd.DataFrame, kept_back: int, targets: Mapping[str, str], *words: str) -> Written:
    train, test = _split(frame, kept_back)
    source = folder / "train.parquet"
    train.to_parquet(source, index=False)
    return Written(source=source, train={"": train}, test={"": test}, targets={"": targets}, words=words)


def many_rows(folder: Path, *, seed: int, rows: int, columns: int, kept_back: int) -> Written:
    """Two amounts and a class with four values; two columns in ten are codes, some cells are missing."""
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(rows + kept_back, columns)).astype(np.float32)
    factors = _factors(inputs, 4, generator)
    noise = generator.normal(size=(len(inputs), 3)).astype(np.float32)
    scores = factors[:, :2] @ generator.normal(size=(2, 4)).astype(np.float32) + 0.5 * generator.normal(size=(len(inputs), 4))
    frame = pd.DataFrame({f"x{index}": inputs[:, index] for index in range(columns)})
    for index in range(max(1, columns // 5)):
        frame[f"x{index}"] = pd.Categorical.from_codes(
            np.digitize(inputs[:, index], np.linspace(-2, 2, 11)).astype(np.int8), pd.Index([f"c{code}" for code in range(12)])
        )
    last = f"x{columns - 1}"
    frame.loc[generator.random(len(frame)) < 0.05, last] = np.nan
    frame["price"] = factors[:, 0] + 0.5 * factors[:, 1] + 0.4 * noise[:, 0]
    frame["demand"] = factors[:, 1] - 0.5 * factors[:, 2] + 0.4 * noise[:, 1]
    frame["segment"] = np.array(["north", "east", "south", "west"])[scores.argmax(1)]
    return _one_table(folder, frame, kept_back, {"price": "number", "demand": "number", "segment": "class"})


def many_classes(folder: Path, *, seed: int, rows: int, columns: int, kept_back: int, classes: int) -> Written:
    """One target of many classes, and an amount that depends on the class."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(classes, columns))
    # Every class is learned from; how often the others appear varies.
    labels = np.concatenate([np.arange(classes), generator.integers(0, classes, size=rows + kept_back - classes)])
    labels[:rows] = generator.permutation(labels[:rows])
    inputs = (centres[labels] + 0.5 * generator.normal(size=(len(labels), columns))).astype(np.float32)
    frame = pd.DataFrame({f"x{index}": inputs[:, index] for index in range(columns)})
    frame["product"] = [f"p{label:05d}" for label in labels]
    frame["weight"] = (centres[labels, 0] * centres[labels, 1] + 0.3 * generator.normal(size=len(labels))).astype(np.float32)
    return _one_table(folder, frame, kept_back, {"product": "class", "weight": "number"})


def many_targets(folder: Path, *, seed: int, rows: int, columns: int, kept_back: int, targets: int) -> Written:
    """Amounts and yes-or-no answers made of eight hidden factors."""
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(rows + kept_back, columns)).astype(np.float32)
    mixed = _factors(inputs, 8, generator) @ generator.normal(size=(8, targets)).astype(np.float32)
    mixed = mixed / mixed.std(0) + 0.7 * generator.normal(size=mixed.shape).astype(np.float32)
    made: dict[str, Any] = {f"x{index}": inputs[:, index] for index in range(columns)}
    kinds = {}
    for index in range(targets):
        name, is_class = f"t{index:03d}", index % 4 == 3
        made[name] = np.where(mixed[:, index] > 0, "yes", "no") if is_class else mixed[:, index]
        kinds[name] = "class" if is_class else "number"
    return _one_table(folder, pd.DataFrame(made), kept_back, kinds)


def many_sets(folder: Path, *, seed: int, rows: int, columns: int, kept_back: int, sets: int) -> Written:
    """One small table a task, all with the same columns; their functions are mixtures of four hidden factors."""
    import yaml

    generator = np.random.default_rng(seed)
    train, test, kinds = {}, {}, {}
    factors = np.random.default_rng(seed + 1)
    inputs = factors.normal(size=((rows + kept_back) * sets, columns)).astype(np.float32)
    hidden = _factors(inputs, 4, factors)
    for index in range(sets):
        part = slice(index * (rows + kept_back), (index + 1) * (rows + kept_back))
        values = hidden[part] @ (1.0 + generator.normal(size=4)) + 0.4 * generator.normal(size=rows + kept_back)
        frame = pd.DataFrame({f"x{column}": inputs[part, column] for column in range(columns)})
        name = f"site{index:03d}"
        frame[f"yield_{name}"] = values.astype(np.float32)
        train[name], test[name] = _split(frame, kept_back)
        train[name].to_csv(folder / f"{name}.csv", index=False)
        kinds[name] = {f"yield_{name}": "number"}
    entries = [{"name": name, "source": f"{name}.csv", "targets": list(kinds[name])} for name in train]
    source = folder / "suite.yaml"
    source.write_text(yaml.safe_dump({"name": "sites", "datasets": entries}), encoding="utf-8")
    return Written(source=source, train=train, test=test, targets=kinds)


def many_texts(folder: Path, *, seed: int, rows: int, kept_back: int, words: int) -> Written:
    """Texts of words that follow topics: a topic of eight, and a rating."""
    generator = np.random.default_rng(seed)
    vocabulary = np.array(
        ["".join(generator.choice(list("abcdefghiklmnoprstuvw"), size=generator.integers(3, 9))) for _ in range(20_000)]
    )
    frequency = 1.0 / np.arange(1, len(vocabulary) + 1)
    frequency /= frequency.sum()
    topics = generator.integers(0, 8, size=rows + kept_back)
    mood = generator.normal(size=rows + kept_back)
    tilt = generator.normal(size=len(vocabulary))
    bodies = []
    # Cumulated weights of words: by topic, twice for low and high mood.
    tables = {}
    for topic in range(8):
        own = np.where(np.arange(len(vocabulary)) % 8 == topic, 2.5, 1.0)
        for high in (False, True):
            weights = frequency * own * np.exp(0.25 * tilt * (1 if high else -1))
            tables[topic, high] = np.cumsum(weights / weights.sum())
    lengths = generator.integers(max(2, words // 2), words + words // 2, size=len(topics))
    for topic, value, length in zip(topics.tolist(), mood.tolist(), lengths.tolist(), strict=True):
        high = generator.random(length) < 1 / (1 + np.exp(-1.5 * value))
        places = generator.random(length)
        chosen = np.where(high, np.searchsorted(tables[topic, True], places), np.searchsorted(tables[topic, False], places)).clip(
            0, len(vocabulary) - 1
        )
        bodies.append(" ".join(vocabulary[chosen].tolist()))
    frame = pd.DataFrame({TEXT: bodies})
    frame["topic"] = [f"topic {topic}" for topic in topics]
    frame["rating"] = (mood + 0.2 * generator.normal(size=len(mood))).astype(np.float32)
    return _one_table(folder, frame, kept_back, {"topic": "class", "rating": "number"}, "--text", TEXT)


def many_columns(folder: Path, *, seed: int, rows: int, columns: int, kept_back: int) -> Written:
    """Two amounts and a yes-or-no answer that depend on 40 of the columns."""
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(rows + kept_back, columns)).astype(np.float32)
    factors = _factors(inputs, 3, generator)
    frame = pd.DataFrame(inputs, columns=[f"x{index}" for index in range(columns)])
    noise = 0.3 * generator.normal(size=factors.shape)
    made = pd.DataFrame(
        {
            "first": factors[:, 0] + 0.5 * factors[:, 2] + noise[:, 0],
            "second": factors[:, 1] + 0.5 * factors[:, 2] + noise[:, 1],
            "third": np.where(factors[:, 2] + noise[:, 2] > 0, "yes", "no"),
        }
    )
    kinds = {"first": "number", "second": "number", "third": "class"}
    return _one_table(folder, pd.concat([frame, made], axis=1), kept_back, kinds)


CASES = {
    case.name: case
    for case in (
        ScaleCase(
            name="rows",
            what="1,000,000 rows x 30 columns, 3 targets",
            write=many_rows,
            full={"rows": 1_000_000, "columns": 30, "kept_back": 50_000},
            quick={"rows": 3000, "columns": 6, "kept_back": 500},
        ),
        ScaleCase(
            name="classes",
            what="100,000 rows x 20 columns, one target of 10,000 classes and a number",
            write=many_classes,
            full={"rows": 100_000, "columns": 20, "kept_back": 10_000, "classes": 10_000},
            quick={"rows": 1200, "columns": 6, "kept_back": 200, "classes": 60},
            peers=("linear", "nearest", "lightgbm"),
        ),
        ScaleCase(
            name="targets",
            what="5,000 rows x 30 columns, 200 targets",
            write=many_targets,
            full={"rows": 5000, "columns": 30, "kept_back": 2000, "targets": 200},
            quick={"rows": 400, "columns": 5, "kept_back": 100, "targets": 24},
        ),
        ScaleCase(
            name="sets",
            what="120 data sets of 100 rows x 20 columns, one target each",
            write=many_sets,
            full={"rows": 100, "columns": 20, "kept_back": 100, "sets": 120},
            quick={"rows": 40, "columns": 4, "kept_back": 20, "sets": 12},
        ),
        ScaleCase(
            name="texts",
            what="100,000 texts of 60 words, 2 targets",
            write=many_texts,
            full={"rows": 100_000, "kept_back": 10_000, "words": 60},
            quick={"rows": 800, "kept_back": 200, "words": 40},
            peers=("tfidf",),
        ),
        ScaleCase(
            name="columns",
            what="2,000 rows x 5,000 columns, 3 targets",
            write=many_columns,
            full={"rows": 2000, "columns": 5000, "kept_back": 2000},
            quick={"rows": 300, "columns": 60, "kept_back": 200},
        ),
    )
}
"""All cases by name, in the order in which they run."""
