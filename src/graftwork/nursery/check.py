"""The check of a pretrained model: linear probes on questions that it never met, beside the same network from scratch.

Every question is answered three times: by a linear model on the frozen features of the pretrained network; by the same on the
features of the network as it was before pretraining; and by the network trained from nothing on the training rows of the question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.files import read_json, write_json
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.train_step import TrainStep
from graftwork.nn.modes import evaluating
from graftwork.nursery.questions import Question
from graftwork.training.config import LoopConfig
from graftwork.training.linear_probe import fit_head
from graftwork.training.loop import Loop

__all__ = ["AnswerBook", "Check", "answer", "probe_accuracy"]

_PENALTIES = (1.0, 0.1, 0.01, 1e-3)
"""Half of this times the squared weights is added to the mean loss."""
_BATCH = 64
_SCRATCH_BATCH = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """Accuracies in percent by question, and whether they suffice."""

    pretrained: Mapping[str, float]
    """Linear probe on the pretrained network."""
    untrained: Mapping[str, float]
    """Linear probe on the network with its first, random weights."""
    scratch: Mapping[str, float]
    """The network trained from nothing on the training rows."""
    mean_margin: float
    """Points by which the probe must be above the better one of the other two, in the mean over questions."""
    least_margin: float
    """Points likewise, on each question."""

    @property
    def gains(self) -> dict[str, float]:
        """Points above the better one of the other two, by question."""
        return {name: value - max(self.untrained[name], self.scratch[name]) for name, value in self.pretrained.items()}

    @property
    def is_passed(self) -> bool:
        """Whether both margins are kept."""
        gains = list(self.gains.values())
        return float(np.mean(gains)) >= self.mean_margin and min(gains) >= self.least_margin

    def to_json(self) -> dict[str, Any]:
        """Return the numbers, rounded to two places."""
        numbers = {name: getattr(self, name) for name in ("pretrained", "untrained", "scratch", "gains")}
        rounded = {name: {key: round(value, 2) for key, value in found.items()} for name, found in numbers.items()}
        return {
            "unit": "percent of test rows",
            **rounded,
            "mean_gain": round(float(np.mean(list(self.gains.values()))), 2),
            "mean_margin": self.mean_margin,
            "least_margin": self.least_margin,
            "passed": self.is_passed,
        }


class AnswerBook:
    """Answers of a check as they come, kept in a file so that a killed check does not begin again.

    Args:
        path: The file; answers to another model in it are forgotten.
        fingerprint: Of the model.
        on_question: Called with the name of each question before it is answered.
    """

    def __init__(self, path: Path, fingerprint: str, on_question: Callable[[str], None] | None = None) -> None:
        self._path, self._fingerprint, self._on_question = path, fingerprint, on_question
        stored = read_json(path) if path.exists() else {}
        self._answers: dict[str, float] = stored.get("answers", {}) if stored.get("fingerprint") == fingerprint else {}

    def begin(self, question: str) -> None:
        """Say that a question comes next."""
        if self._on_question is not None:
            self._on_question(question)

    def get(self, name: str, compute: Callable[[], float]) -> float:
        """Return an answer, from the file or computed now and kept."""
        if name not in self._answers:
            self._answers[name] = compute()
            write_json(self._path, {"fingerprint": self._fingerprint, "answers": self._answers})
        return self._answers[name]


def answer(
    pretrained: Backbone,
    fresh: Callable[[], Backbone],
    questions: Sequence[Question],
    book: AnswerBook,
    *,
    epochs: int,
    mean_margin: float,
    least_margin: float,
    learning_rate: float = 1e-3,
) -> Check:
    """Answer all questions in the three ways.

    Args:
        pretrained: The network to check; its features are vectors.
        fresh: Builds the same network with random weights, from torch's global generator.
        questions: What is asked.
        book: Keeps the answers.
        epochs: Epochs of the network that learns a question from nothing; 0 leaves that out (its accuracy then counts as 0).
        mean_margin: See :class:`Check`.
        least_margin: See :class:`Check`.
        learning_rate: Highest learning rate of the network that learns from nothing.
    """
    found: dict[str, dict[str, float]] = {"pretrained": {}, "untrained": {}, "scratch": {}}
    for question in questions:
        name = question.name
        book.begin(name)
        found["pretrained"][name] = book.get(f"{name}/pretrained", partial(probe_accuracy, pretrained, question))
        found["untrained"][name] = book.get(f"{name}/untrained", partial(_fresh_accuracy, fresh, question))
        learned = partial(_trained_accuracy, fresh, question, epochs, learning_rate)
        found["scratch"][name] = book.get(f"{name}/scratch", learned) if epochs else 0.0
    return Check(**found, mean_margin=mean_margin, least_margin=least_margin)


def probe_accuracy(backbone: Backbone, question: Question) -> float:
    """Return the accuracy of a linear model on frozen features, in percent of the test rows: the mean over the splits.

    The penalty is the one with the lowest loss on the validation rows.
    """
    features = _features(backbone, question.image)
    label = torch.from_numpy(question.label)
    task = TaskSpec(name=question.name, kind="multiclass", size=question.num_classes)
    accuracies = []
    for split in question.splits:
        rows = {name: torch.from_numpy(chosen) for name, chosen in split.items()}
        mean, spread = features[rows["train"]].mean(dim=0), features[rows["train"]].std(dim=0).clamp(min=1e-6)
        seen = {name: (features[chosen] - mean) / spread for name, chosen in rows.items()}
        state = torch.zeros(question.num_classes, features.shape[1]), torch.zeros(question.num_classes)
        best, chosen_state = float("inf"), state
        for penalty in _PENALTIES:
            state = fit_head(task, seen["train"], label[rows["train"]], penalty, state, steps=40)
            loss = float(F.cross_entropy(seen["val"] @ state[0].T + state[1], label[rows["val"]]))
            if loss < best:
                best, chosen_state = loss, state
        scores = seen["test"] @ chosen_state[0].T + chosen_state[1]
        accuracies.append(_accuracy(scores, label[rows["test"]]))
    return float(np.mean(accuracies))


class _Supervised(TrainStep[tuple[Tensor, Tensor]]):
    """Cross-entropy of a linear head."""

    loss_names = ("cross-entropy",)

    def __init__(self, model: Backbone, num_classes: int) -> None:
        self.model = model
        self._head = nn.Linear(model.feature_shape.width, num_classes)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"head": self._head}

    def backward(self, batch: tuple[Tensor, Tensor], step: int) -> Tensor:
        image, label = batch
        loss = F.cross_entropy(self._head(self.model({"image": image})), label)
        loss.backward()
        return loss.detach().unsqueeze(0)


class _Rows:
    """Batches of training rows; every epoch has an order of its own."""

    def __init__(self, question: Question, rows: NDArray[np.int64], seeds: Seeds) -> None:
        self._question, self._rows, self._seeds = question, rows, seeds
        self.per_epoch = max(1, len(rows) // _SCRATCH_BATCH)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(step, self.per_epoch)
        order = self._seeds.numpy(f"order/{epoch}").permutation(self._rows)
        rows = order[place * _SCRATCH_BATCH : (place + 1) * _SCRATCH_BATCH]
        return torch.from_numpy(self._question.image[rows]), torch.from_numpy(self._question.label[rows])


def _fresh_accuracy(fresh: Callable[[], Backbone], question: Question) -> float:
    _seeds(question).set_global("init")
    return probe_accuracy(fresh(), question)


def _trained_accuracy(fresh: Callable[[], Backbone], question: Question, epochs: int, learning_rate: float) -> float:
    """Return the accuracy of the network trained on the first split, in percent of its test rows."""
    seeds = _seeds(question)
    seeds.set_global("init")
    backbone = fresh()
    split = question.splits[0]
    rows = _Rows(question, split["train"], seeds)
    step = _Supervised(backbone, question.num_classes)
    config = LoopConfig(max_steps=epochs * rows.per_epoch, learning_rate=learning_rate, weight_decay=0.05)
    Loop(step, rows, config=config, seeds=seeds).train(config.max_steps)
    with torch.no_grad():
        scores = step.modules()["head"](_features(backbone, question.image[split["test"]]))
    return _accuracy(scores, torch.from_numpy(question.label[split["test"]]))


def _seeds(question: Question) -> Seeds:
    return Seeds(0).child(f"check/{question.name}")


@torch.no_grad()
def _features(backbone: Backbone, image: NDArray[np.uint8]) -> Tensor:
    with evaluating(backbone):
        parts = [
            backbone({"image": torch.from_numpy(np.array(image[start : start + _BATCH]))})
            for start in range(0, len(image), _BATCH)
        ]
    return torch.cat(parts)


def _accuracy(scores: Tensor, label: Tensor) -> float:
    return float((scores.argmax(dim=1) == label).double().mean()) * 100.0
