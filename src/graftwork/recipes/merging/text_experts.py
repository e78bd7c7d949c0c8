"""What recipes about merging share: six short text tasks in one suite, and MiniLM tuned for each of them from one start.

Texts are cut to 16 tokens. A task's head is a logistic regression on MiniLM's features and stays as it is (in the papers it is the
text encoder of CLIP that names the classes, frozen as well); the upper three of the six layers are tuned on all training rows of the
task.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import nn

from graftwork.claims.experiment import ArmContext
from graftwork.claims.guards import GuardedSuite
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream, iter_rows
from graftwork.data.suite import Suite
from graftwork.data.suites.short_texts import short_texts
from graftwork.interfaces.model_merger import MergeContext, MergeModel
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.transformers_bridge import TransformersBackbone, load_transformers, minilm_folder, prepare_suite
from graftwork.training.prediction import predict_rows
from graftwork.training.trainer import TrainConfig, Trainer

__all__ = [
    "TASKS",
    "base_state",
    "fit_head",
    "labelled",
    "load_experts",
    "make_experts",
    "merge_context",
    "merge_model",
    "points",
    "text_tasks",
    "trunk_of",
    "tune",
]

Array = NDArray[Any]
State = dict[str, Array]

TASKS = ("emoji", "emoji-german", "languages", "characters", "nouns", "airports")
LONGEST, LAYERS, FROZEN = 16, 6, 3
"""Tokens that are read of a text; layers of MiniLM, and how many of them never learn."""


@functools.lru_cache(maxsize=4)
def text_tasks(seed: int, *, tasks: tuple[str, ...] = TASKS, most: int = 0) -> Suite:
    """Return one suite of several tasks of :mod:`graftwork.data.suites.short_texts`; a row is labelled for one of them.

    Args:
        seed: Draws the splits.
        tasks: Which ones; their names are those of the suite's tasks.
        most: Most rows of a task and split, the suite holds no others; 0 takes all.
    """
    parts = [short_texts(name, seed=seed) for name in tasks]
    sizes = [len(part) for part in parts]
    starts = np.cumsum([0, *sizes])
    specs, targets = [], {}
    for place, (name, part) in enumerate(zip(tasks, parts, strict=True)):
        spec = part.tasks[0]
        specs.append(TaskSpec(name=name, kind=spec.kind, size=spec.size, classes=spec.classes))
        target = np.full(starts[-1], -1, np.int64)
        target[starts[place] : starts[place + 1]] = part.targets[spec.name]
        targets[name] = target

    def few(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        # Rows come class by class: a few of them are taken from all over.
        return rows[:: max(1, len(rows) // most)][:most] if most else rows

    def rows(split: str) -> NDArray[np.int64]:
        # Not strict: `starts` goes on with the number of all rows.
        return np.concatenate([few(part.splits[split]) + start for part, start in zip(parts, starts, strict=False)])

    splits = {split: rows(split) for split in ("train", "val", "test")}
    kept = np.unique(np.concatenate(list(splits.values()))) if most else np.arange(starts[-1])
    whole = Suite.of_arrays(
        name="short-text-tasks",
        input_specs=parts[0].input_specs,
        tasks=specs,
        inputs={"tokens": np.ones((len(kept), 1), np.int64)},
        targets={name: target[kept] for name, target in targets.items()},
        splits={split: np.searchsorted(kept, found) for split, found in splits.items()},
        domain=np.repeat(np.arange(len(tasks)), sizes)[kept],
        domains=tasks,
        raw={"text": np.concatenate([part.raw["text"] for part in parts])[kept]},
        credits={key: value for part in parts for key, value in part.credits.items()},
    )
    read = prepare_suite(whole, "minilm")
    return read.with_inputs({name: array[:, :LONGEST] for name, array in read.inputs.items()})


def labelled(suite: Suite, split: str, task: str) -> NDArray[np.int64]:
    """Return the rows of a split that have a label of a task."""
    rows = suite.splits[split]
    return rows[suite.targets[task][rows] >= 0]


@functools.cache
def _pretrained() -> TransformersBackbone:
    trunk = load_transformers(minilm_folder(), local_only=True)
    tuned = set(_tuned_names(trunk))
    for name, parameter in trunk.named_parameters():
        parameter.requires_grad_(name in tuned)
    return trunk


def trunk_of() -> TransformersBackbone:
    """Return MiniLM with its pretrained weights, of which the upper layers learn; all copies share the weights that do not."""
    trunk = _pretrained()
    shared = {id(parameter): parameter for parameter in trunk.parameters() if not parameter.requires_grad}
    # What the memo holds is not copied: embeddings and lower layers are three quarters of the model.
    return copy.deepcopy(trunk, dict(shared))


def _tuned_names(trunk: nn.Module) -> list[str]:
    upper = tuple(f"model.encoder.layer.{number}." for number in range(FROZEN, LAYERS))
    return [name for name, _ in trunk.named_parameters() if name.startswith(upper)]


def network_of(task: TaskSpec) -> SharedTrunk:
    """Return MiniLM with a linear head, which does not learn."""
    model = SharedTrunk([task], trunk_of, inputs={}, head_hidden=0)
    model.heads.requires_grad_(False)
    return model


def base_state() -> State:
    """Return the pretrained values of what is tuned, by their names in :func:`network_of`."""
    trunk = _pretrained()
    values = dict(trunk.named_parameters())
    return {f"backbone.{name}": values[name].detach().numpy().copy() for name in _tuned_names(trunk)}


def fit_head(suite: Suite, task: TaskSpec, rows: NDArray[np.int64], *, strength: float = 1.0) -> State:
    """Return a head for MiniLM's own features: logistic regression on normalised features.

    Args:
        suite: Holds rows and labels.
        task: Its classes.
        rows: What it learns from.
        strength: Inverse of the penalty.
    """
    from sklearn.linear_model import LogisticRegression

    model = network_of(task).eval()
    head = model.heads[0]
    norm = next(module for module in head.modules() if isinstance(module, nn.LayerNorm))
    last = [module for module in head.modules() if isinstance(module, nn.Linear)][-1]
    with torch.inference_mode():
        features = torch.cat([norm(model.encode(batch.inputs)) for batch in iter_rows(suite, rows, 256)]).numpy()
    labels = suite.targets[task.name][rows]
    fitted = LogisticRegression(C=strength, max_iter=300).fit(features, labels)
    weight, bias = np.zeros(last.weight.shape, np.float32), np.full(task.size, -10.0, np.float32)
    # With two classes there is one row of coefficients; a class without a row is never the answer.
    pair = len(fitted.classes_) == 2 and len(fitted.coef_) == 1
    found = np.stack([-fitted.coef_[0], fitted.coef_[0]]) / 2.0 if pair else fitted.coef_
    shift = np.array([-fitted.intercept_[0], fitted.intercept_[0]]) / 2.0 if pair else fitted.intercept_
    weight[fitted.classes_], bias[fitted.classes_] = found, shift
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(weight))
        last.bias.copy_(torch.from_numpy(bias))
    return {name: value.numpy().copy() for name, value in model.state_dict().items() if name.startswith("heads.")}


def load_into(task: TaskSpec, state: Mapping[str, Array]) -> SharedTrunk:
    """Return the network of a task with some of its weights replaced."""
    model = network_of(task)
    found = model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()}, strict=False)
    assert not found.unexpected_keys
    return model.eval()


def tune(
    suite: Suite,
    task: TaskSpec,
    rows: NDArray[np.int64],
    head: Mapping[str, Array],
    seeds: Seeds,
    context: ArmContext,
    *,
    steps: int,
    rate: float,
    batch: int = 32,
) -> State:
    """Return the tuned layers of MiniLM with the head that was given, after training on some rows."""
    seeds.set_global("init")
    model = load_into(task, head)
    trainer = Trainer(
        model,
        [task],
        BatchStream(suite.with_tasks((task.name,)), rows, batch, seeds.integer("batches")),
        balancer=EqualWeights(),
        config=TrainConfig(max_steps=steps, batch_size=batch, learning_rate=rate, evaluations=0),
        seeds=seeds,
        callbacks=[context.budget_callback()],
    )
    trainer.train(steps)
    names = set(base_state())
    found = {name: value.detach().numpy().copy() for name, value in trainer.eval_model().state_dict().items()}
    return {name: value for name, value in found.items() if name in names or name.startswith("heads.")}


def make_experts(folder: Path, suite: GuardedSuite, seed: int, context: ArmContext, *, steps: int, rate: float) -> None:
    """Write one tuned model a task."""
    for done, task in enumerate(suite.visible.tasks, start=1):
        rows = labelled(suite.visible, "train", task.name)
        head = fit_head(suite.visible, task, rows)
        state = tune(suite.visible, task, rows, head, Seeds(seed).child(task.name), context, steps=steps, rate=rate)
        save_file(state, folder / f"{task.name}.safetensors")
        context.progress(done / len(suite.visible.tasks), f"tuned for {task.name}")


def load_experts(folder: Path, tasks: Sequence[TaskSpec]) -> dict[str, State]:
    """Return what :func:`make_experts` wrote, by task."""
    return {task.name: load_file(folder / f"{task.name}.safetensors") for task in tasks}


def merge_model(task: TaskSpec | None, state: Mapping[str, Array], name: str) -> MergeModel:
    """Return a model for a merger: only what is tuned is shown as its tensors, so that heads stay out of the merge."""
    shown = {key: value for key, value in state.items() if not key.startswith("heads.")}
    build: Callable[[], nn.Module] | None = None if task is None else functools.partial(load_into, task, state)
    return MergeModel(name=name, tensors=shown, network=build)


def merge_context(
    suite: Suite, rows: NDArray[np.int64], seed: int, *, tasks: Sequence[TaskSpec] = (), labels: bool = True
) -> MergeContext:
    """Return rows for a merger under the role ``val``.

    Args:
        suite: Holds them.
        rows: Which ones.
        seed: Of everything drawn.
        tasks: Tasks of the rows; all of the suite by default.
        labels: Without them every known label is replaced by 0: which task a row is of stays known, nothing else.
    """
    if not labels:
        suite = suite.with_targets({name: np.where(target >= 0, 0, -1) for name, target in suite.targets.items()})
    if tasks:
        suite = suite.with_tasks(tuple(task.name for task in tasks))
    return MergeContext(tasks=suite.tasks, rows={"val": functools.partial(iter_rows, suite, rows)}, seed=seed)


def points(suite: GuardedSuite, split: str, models: Mapping[str, Mapping[str, Array]]) -> dict[str, float]:
    """Return the accuracy of a model for each task, in percent, over the rows of the task.

    Args:
        suite: The data; test labels stay inside.
        split: Rows that count.
        models: Tuned layers and head, by task.
    """
    asked = suite.questions(split) if split == "test" else suite.visible
    rows = suite.rows(split)
    assert asked.domain is not None
    found = {}
    for name, state in models.items():
        task = suite.visible.task(name)
        own = asked.domain[rows] == asked.domains.index(name)
        # Rows of other tasks have no label of this one; what is said of them does not count.
        answers = np.zeros((len(rows), task.size), np.float32)
        answers[own] = predict_rows(load_into(task, state), [task], asked, rows[own])[name]
        found[name] = 100.0 * float(suite.score(split, {name: answers})[name]["accuracy"])
    return found
