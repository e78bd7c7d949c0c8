"""What people use at these sizes, one predictor a target: ``python peers.py NAME FOLDER``; imports nothing of graftwork.

The folder holds ``job.json``, ``train-N.parquet`` and ``test-N.parquet``; ``answers.json`` is written into it: the answer to each kept-back
row, a number or a class.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["PEERS", "main"]

Fit = Callable[[pd.DataFrame, pd.DataFrame, "pd.Series[Any]", str, int], NDArray[Any]]
"""Columns to learn from, those of the kept-back rows, the target, its kind, cores; returns the answers."""
TEXT = "body"


def _coded(train: pd.DataFrame, test: pd.DataFrame) -> tuple[NDArray[np.float32], NDArray[np.float32], list[int]]:
    """Return both tables as numbers, words as codes, and which columns are words."""
    words = [index for index, name in enumerate(train) if not pd.api.types.is_numeric_dtype(train[name])]
    parts = []
    levels = {name: pd.Categorical(train[name]).categories for name in train.columns[words]}
    for frame in (train, test):
        made = frame.copy(deep=False)
        for name, known in levels.items():
            made[name] = pd.Categorical(frame[name], categories=known).codes
        parts.append(made.to_numpy(dtype=np.float32))
    return parts[0], parts[1], words


def _design(train: pd.DataFrame, test: pd.DataFrame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return both tables for linear models: numbers standardised with the mean where they are missing, words one-hot."""
    first, second, words = _coded(train, test)
    numbers = [index for index in range(first.shape[1]) if index not in set(words)]
    mean, spread = np.nanmean(first[:, numbers], axis=0), np.nanstd(first[:, numbers], axis=0) + 1e-9
    made = []
    for values in (first, second):
        scaled = np.nan_to_num((values[:, numbers] - mean) / spread)
        flags = [values[:, [index]] == np.arange(int(first[:, index].max()) + 1) for index in words]
        made.append(np.concatenate([scaled, *flags], axis=1).astype(np.float32))
    return made[0], made[1]


def lightgbm(train: pd.DataFrame, test: pd.DataFrame, target: pd.Series[Any], kind: str, cores: int) -> NDArray[Any]:
    """LightGBM as it comes: 100 rounds on all rows."""
    import lightgbm as lgb

    first, second, words = _coded(train, test)
    learner = lgb.LGBMRegressor if kind == "number" else lgb.LGBMClassifier
    model = learner(n_jobs=cores, verbose=-1, random_state=0)
    model.fit(first, target.to_numpy(), categorical_feature=words)
    return np.asarray(model.predict(second))


def linear(train: pd.DataFrame, test: pd.DataFrame, target: pd.Series[Any], kind: str, cores: int) -> NDArray[Any]:
    """Ridge and logistic regression of scikit-learn."""
    from sklearn.linear_model import LogisticRegression, Ridge

    first, second = _design(train, test)
    model = Ridge() if kind == "number" else LogisticRegression(max_iter=100)
    return np.asarray(model.fit(first, target.to_numpy()).predict(second))


def nearest(train: pd.DataFrame, test: pd.DataFrame, target: pd.Series[Any], kind: str, cores: int) -> NDArray[Any]:
    """The five nearest rows, scikit-learn."""
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    first, second = _design(train, test)
    learner = KNeighborsRegressor if kind == "number" else KNeighborsClassifier
    return np.asarray(learner(5, weights="distance", n_jobs=cores).fit(first, target.to_numpy()).predict(second))


def tfidf(train: pd.DataFrame, test: pd.DataFrame, target: pd.Series[Any], kind: str, cores: int) -> NDArray[Any]:
    """TF-IDF of words into ridge or logistic regression, scikit-learn."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline

    learner = Ridge() if kind == "number" else LogisticRegression(max_iter=100)
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True, min_df=2), learner)
    return np.asarray(model.fit(train[TEXT], target.to_numpy()).predict(test[TEXT]))


PEERS: dict[str, Fit] = {"lightgbm": lightgbm, "linear": linear, "nearest": nearest, "tfidf": tfidf}


def main(name: str, folder: Path) -> None:
    """Fit and answer every target of every data set."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    answers: dict[str, dict[str, list[Any]]] = {}
    started = time.perf_counter()
    for number, (data, kinds) in enumerate(job["targets"].items()):
        train, test = (pd.read_parquet(folder / f"{part}-{number}.parquet") for part in ("train", "test"))
        columns = [column for column in train if column not in kinds]
        answers[data] = {}
        for target, kind in kinds.items():
            found = PEERS[name](train[columns], test[columns], train[target], kind, int(job["cores"]))
            answers[data][target] = found.tolist()
    fitted = {"seconds": time.perf_counter() - started, "answers": answers}
    (folder / "answers.json").write_text(json.dumps(fitted), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
