"""What people use today, one predictor a target: ``python peers.py NAME JOB_FOLDER``.

It imports nothing of graftwork, so that it also runs with the interpreter of another environment (AutoGluon pins other versions). The
folder holds ``job.json``, ``train.csv`` and ``test.csv``; ``answers.json`` is written into it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Answer = dict[str, Any]
"""``{"values": [...]}`` for numbers; ``{"classes": [...], "probabilities": [[...]]}`` for classes."""


def _columns(train: pd.DataFrame, test: pd.DataFrame, job: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the names of numeric and of other input columns; files of pictures are none."""
    names = [name for name in train if name not in job["targets"] and name != "picture"]
    numeric = [name for name in names if pd.api.types.is_numeric_dtype(train[name]) and pd.api.types.is_numeric_dtype(test[name])]
    return numeric, [name for name in names if name not in numeric]


def _table_features(train: pd.DataFrame, job: dict[str, Any], *, scale: bool) -> Any:
    """Return the usual preparation for scikit-learn: medians, scaling, one-hot words."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numeric, words = _columns(train, train, job)
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), *([StandardScaler()] if scale else []))
    coded = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=3)
    return ColumnTransformer([("numbers", numbers, numeric), ("words", coded, words)])


def _fitted(model: Any, train: pd.DataFrame, test: pd.DataFrame, target: str, kind: str) -> Answer:
    known = train[target].notna()
    model.fit(train[known], train.loc[known, target])
    if kind == "number":
        return {"values": np.asarray(model.predict(test), dtype=float).tolist()}
    return {"classes": [str(name) for name in model.classes_], "probabilities": model.predict_proba(test).tolist()}


def extra_trees(train: pd.DataFrame, test: pd.DataFrame, target: str, kind: str, job: dict[str, Any]) -> Answer:
    """500 extremely randomised trees."""
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
    from sklearn.pipeline import make_pipeline

    learner = ExtraTreesRegressor if kind == "number" else ExtraTreesClassifier
    model = make_pipeline(_table_features(train, job, scale=False), learner(500, n_jobs=job["cores"], random_state=0))
    return _fitted(model, train, test, target, kind)


def linear(train: pd.DataFrame, test: pd.DataFrame, target: str, kind: str, job: dict[str, Any]) -> Answer:
    """Ridge and logistic regression, the penalty by cross-validation."""
    from sklearn.linear_model import LogisticRegressionCV, RidgeCV
    from sklearn.pipeline import make_pipeline

    penalties = np.logspace(-3, 3, 13)
    if kind == "number":
        learner: Any = RidgeCV(penalties)
    else:
        learner = LogisticRegressionCV(Cs=7, max_iter=300, scoring="neg_log_loss", n_jobs=job["cores"])
    return _fitted(make_pipeline(_table_features(train, job, scale=True), learner), train, test, target, kind)


FEW_ROWS = 2000
"""Below so many rows a fifth of them stops boosting too early, and settings are chosen by cross-validation."""
_CATEGORIES: dict[str, list[Any]] = {"min_data_per_group": [10], "cat_smooth": [5]}
"""By default categories of few rows cannot be told apart at all."""
_FEW: list[dict[str, list[Any]]] = [
    {},
    {**_CATEGORIES, "n_estimators": [100, 300], "learning_rate": [0.05], "min_child_samples": [5]},
    {**_CATEGORIES, "n_estimators": [60], "learning_rate": [0.05], "num_leaves": [7]},
]


def lightgbm(train: pd.DataFrame, test: pd.DataFrame, target: str, kind: str, job: dict[str, Any]) -> Answer:
    """Gradient-boosted trees: of few rows the best of four settings (the library's own, two for few rows, a cautious one), of many
    as many rounds as a fifth of the rows asks for; then fitted on all rows."""
    import lightgbm as lgb
    from sklearn.model_selection import GridSearchCV

    train = train[train[target].notna()]
    numeric, words = _columns(train, test, job)
    frames = []
    for frame in (train, test):
        made = frame[numeric + words].copy()
        for name in words:
            made[name] = pd.Categorical(frame[name], categories=sorted(map(str, train[name].dropna().unique())))
        frames.append(made)
    common = {"n_jobs": job["cores"], "verbose": -1, "random_state": 0}
    learner = lgb.LGBMRegressor if kind == "number" else lgb.LGBMClassifier
    if len(train) < FEW_ROWS:
        scoring = "neg_mean_squared_error" if kind == "number" else "neg_log_loss"
        model: Any = GridSearchCV(learner(**common), _FEW, cv=5, scoring=scoring)
        model.fit(frames[0], train[target])
    else:
        many = {**common, "n_estimators": 3000, "learning_rate": 0.05}
        held = np.random.default_rng(0).random(len(train)) < 0.2
        if kind == "class":
            held &= train[target].isin(set(train.loc[~held, target])).to_numpy()
        first = learner(**many)
        first.fit(
            frames[0][~held],
            train.loc[~held, target],
            eval_set=[(frames[0][held], train.loc[held, target])],
            callbacks=[lgb.early_stopping(100, verbose=False)],
        )
        model = learner(**{**many, "n_estimators": max(10, int((first.best_iteration_ or 100) * 1.1))})
        model.fit(frames[0], train[target])
    if kind == "number":
        return {"values": model.predict(frames[1]).tolist()}
    return {"classes": [str(name) for name in model.classes_], "probabilities": model.predict_proba(frames[1]).tolist()}


def tfidf(train: pd.DataFrame, test: pd.DataFrame, target: str, kind: str, job: dict[str, Any]) -> Answer:
    """TF-IDF of words and characters into ridge or logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegressionCV, RidgeCV
    from sklearn.pipeline import make_pipeline, make_union

    union = make_union(
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2, max_features=100_000),
        TfidfVectorizer(sublinear_tf=True, ngram_range=(3, 5), analyzer="char_wb", min_df=2, max_features=100_000),
    )
    if kind == "number":
        learner: Any = RidgeCV(np.logspace(-2, 2, 9))
    else:
        learner = LogisticRegressionCV(Cs=[1, 10, 100], max_iter=200, scoring="neg_log_loss", n_jobs=job["cores"], cv=3)
    model = make_pipeline(union, learner)
    known = train[target].notna()
    model.fit(train.loc[known, "body"], train.loc[known, target])
    if kind == "number":
        return {"values": model.predict(test["body"]).tolist()}
    return {"classes": [str(name) for name in model.classes_], "probabilities": model.predict_proba(test["body"]).tolist()}


def embeddings(train: pd.DataFrame, test: pd.DataFrame, target: str, kind: str, job: dict[str, Any]) -> Answer:
    """Features of a pretrained encoder (MiniLM, EfficientNet-Lite0 at 224 pixels) into ridge or logistic regression."""
    from sklearn.linear_model import LogisticRegressionCV, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    stored = np.load(Path(job["folder"]) / "features.npz")
    learner: Any = RidgeCV(np.logspace(-1, 5, 13))
    if kind == "class":
        learner = LogisticRegressionCV(Cs=np.logspace(-5, 1, 7), max_iter=200, scoring="neg_log_loss", n_jobs=job["cores"], cv=3)
    model = make_pipeline(StandardScaler(), learner)
    known = train[target].notna().to_numpy()
    model.fit(stored["train"][known], train.loc[known, target])
    if kind == "number":
        return {"values": model.predict(stored["test"]).tolist()}
    return {"classes": [str(name) for name in model.classes_], "probabilities": model.predict_proba(stored["test"]).tolist()}


def _joined(train: pd.DataFrame, test: pd.DataFrame, job: dict[str, Any], *, compress: bool) -> list[pd.DataFrame]:
    """Return both frames with the features of the pretrained encoder as further columns, all or their 64 main components."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    stored = np.load(Path(job["folder"]) / "features.npz")
    made = [stored["train"], stored["test"]]
    if compress:
        scaler = StandardScaler().fit(made[0])
        components = PCA(min(64, *made[0].shape), random_state=0).fit(scaler.transform(made[0]))
        made = [components.transform(scaler.transform(part)) for part in made]
    return [
        pd.concat([frame.reset_index(drop=True), pd.DataFrame(part).add_prefix("feature ")], axis=1)
        for frame, part in zip((train, test), made, strict=True)
    ]


def joined_linear(train: pd.DataFrame, test: pd.DataFrame, target: str, kind: str, job: dict[str, Any]) -> Answer:
    """Ridge or logistic regression on columns and features of a pretrained encoder."""
    return linear(*_joined(train, test, job, compress=False), target, kind, job)


def joined_lightgbm(train: pd.DataFrame, test: pd.DataFrame, target: str, kind: str, job: dict[str, Any]) -> Answer:
    """Gradient-boosted trees on columns and the main components of features of a pretrained encoder."""
    return lightgbm(*_joined(train, test, job, compress=True), target, kind, job)


def _autogluon(preset: str) -> Callable[..., Answer]:
    def run(train: pd.DataFrame, test: pd.DataFrame, target: str, kind: str, job: dict[str, Any]) -> Answer:
        from autogluon.tabular import TabularPredictor

        others = [name for name in job["targets"] if name != target]
        train = train[train[target].notna()].drop(columns=others)
        problem = "regression" if kind == "number" else ("binary" if train[target].nunique() == 2 else "multiclass")
        with tempfile.TemporaryDirectory() as folder:
            model = TabularPredictor(label=target, path=folder, problem_type=problem, verbosity=0)
            model.fit(
                train,
                presets=preset,
                time_limit=job["seconds"] / len(job["targets"]),
                num_cpus=job["cores"],
                num_gpus=0,
            )
            if kind == "number":
                return {"values": model.predict(test).tolist()}
            found = model.predict_proba(test)
            return {"classes": [str(name) for name in found.columns], "probabilities": found.to_numpy().tolist()}

    return run


PEERS: dict[str, Callable[..., Answer]] = {
    "extra-trees": extra_trees,
    "linear": linear,
    "lightgbm": lightgbm,
    "tfidf-linear": tfidf,
    "embeddings-linear": embeddings,
    "joined-linear": joined_linear,
    "joined-lightgbm": joined_lightgbm,
    "autogluon-medium": _autogluon("medium_quality"),
    "autogluon-good": _autogluon("good_quality"),
}
"""By name."""


def main(name: str, folder: Path) -> None:
    """Answer a job."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    train, test = pd.read_csv(folder / "train.csv"), pd.read_csv(folder / "test.csv")
    started = time.perf_counter()
    answers = {}
    for target, kind in job["targets"].items():
        if kind == "class":
            train[target] = train[target].astype(str).where(train[target].notna())
        answers[target] = PEERS[name](train, test, target, kind, {**job, "folder": str(folder)})
    done = {"seconds": time.perf_counter() - started, "answers": answers}
    (folder / "answers.json").write_text(json.dumps(done), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
