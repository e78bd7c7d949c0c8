"""The verdict alone, on networks that are trained outside of ``fit``: those of all folds, tasks and controls at once.

A suite takes one to three seconds in place of 10 to 50, so hundreds can be judged. What decides is the same: predictions of
every fold, controls with shuffled companions, and ``build_verdict``. There is no race, no affinity and no grouping.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.verdicts.running import ENOUGH_ROWS, changes_of_scores
from benchmarks.verdicts.worlds import WorldSuite
from graftwork.core.records import Ledger, TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.folds import fold_suite, fold_test_rows
from graftwork.data.suite import Suite, labelled_rows
from graftwork.evaluation.choice.scores import FinalRun
from graftwork.evaluation.choice.verdict import build_verdict
from graftwork.evaluation.controls import shuffled_companions
from graftwork.evaluation.metrics import default_metric, score_task
from graftwork.workflows.fit.answers import fold_scores
from graftwork.workflows.portfolio import portfolio

__all__ = ["judge_networks"]

FOLDS, SEEDS, CONTROLS = 5, 3, 3
"""As `fit` has them by itself: folds below 2,000 rows, seeds above, tasks with a control where there are folds."""
WIDTH, BATCH, RATE = 64, 64, 5e-3

Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Arm:
    """One network: what it learns, from which division of the rows."""

    name: str
    """`separate`, `shared-trunk` or `control`."""
    number: int
    """Fold or seed."""
    tasks: tuple[str, ...]
    suite: Suite
    """With the targets and the training rows of this arm."""


def _arms(world: WorldSuite) -> list[_Arm]:
    suite, found = world.suite, []
    names = suite.task_names
    few = world.rows < ENOUGH_ROWS
    for number in range(FOLDS if few else SEEDS):
        own = fold_suite(suite, FOLDS, number) if few else suite
        found.append(_Arm(name="shared-trunk", number=number, tasks=names, suite=own))
        found += [_Arm(name="separate", number=number, tasks=(task,), suite=own) for task in names]
        for task in names[: CONTROLS if few else len(names)]:
            stream = Seeds(number).integer(task)
            found.append(
                _Arm(
                    name="control",
                    number=number,
                    tasks=(task, *[name for name in names if name != task]),
                    suite=shuffled_companions(own, task, stream),
                )
            )
    return found


class _Networks(torch.nn.Module):
    """As many networks of two layers with heads for all tasks as there are arms: ``[A, B, F]`` to ``[A, B, O]``."""

    def __init__(self, arms: int, features: int, outputs: int) -> None:
        super().__init__()
        sizes = [(features, WIDTH), (WIDTH, WIDTH), (WIDTH, outputs)]
        self.weights = torch.nn.ParameterList(torch.empty(arms, *size).uniform_(-1, 1) * size[0] ** -0.5 for size in sizes)
        self.biases = torch.nn.ParameterList(torch.zeros(arms, 1, size[1]) for size in sizes)

    def forward(self, inputs: Tensor) -> Tensor:
        found = inputs
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            found = torch.baddbmm(bias, found, weight)
            if layer < 2:
                found = functional.layer_norm(functional.gelu(found), (WIDTH,))
        return found


def _losses(task: TaskSpec, output: Tensor, target: Tensor) -> Tensor:
    """Return the loss of each arm on one task, ``[A]``; rows without a label do not count. ``target`` is ``[A, B]``."""
    known = ~torch.isnan(target)
    safe = torch.nan_to_num(target)
    if task.kind == "regression":
        each = (output[..., 0] - (safe - task.center[0]) / task.scale[0]) ** 2 / 2
    elif task.kind == "binary":
        each = functional.binary_cross_entropy_with_logits(output[..., 0], safe, reduction="none")
    else:
        each = functional.cross_entropy(output.transpose(1, 2), safe.long(), reduction="none")
    return (each * known).sum(1) / known.sum(1).clamp(min=1)


def _decoded(task: TaskSpec, output: Tensor) -> NDArray[Any]:
    if task.kind == "regression":
        return (output * task.scale[0] + task.center[0]).numpy()
    return (output[:, 0].sigmoid() if task.kind == "binary" else output.softmax(1)).numpy()


def _columns(tasks: Sequence[TaskSpec]) -> dict[str, slice]:
    found, start = {}, 0
    for task in tasks:
        found[task.name] = slice(start, start + task.size)
        start += task.size
    return found


def _trained(suite: Suite, arms: Sequence[_Arm], steps: int, seed: int) -> _Networks:
    torch.manual_seed(seed)
    places = _columns(suite.tasks)
    inputs = torch.as_tensor(np.asarray(suite.inputs["numeric"]))
    tables = []
    for arm in arms:
        columns = [
            np.asarray(arm.suite.targets[name], dtype=np.float32).reshape(len(inputs), -1)[:, 0] for name in suite.task_names
        ]
        tables.append(
            [
                np.where(labelled_rows(np.asarray(arm.suite.targets[name])), column, np.nan)
                for name, column in zip(suite.task_names, columns, strict=True)
            ]
        )
    targets = torch.as_tensor(np.array(tables))  # [A, T, N]
    counted = torch.tensor([[float(name in arm.tasks) for name in suite.task_names] for arm in arms])
    networks = _Networks(len(arms), inputs.shape[1], places[suite.task_names[-1]].stop)
    optimizer = torch.optim.AdamW(networks.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rows = [torch.as_tensor(np.asarray(arm.suite.splits["train"])) for arm in arms]
    index = torch.arange(len(arms))[:, None]
    for _ in range(steps):
        batch = torch.stack([own[torch.randint(len(own), (min(BATCH, 64),))] for own in rows])
        output = networks(inputs[batch])
        losses = torch.stack(
            [
                _losses(task, output[..., places[task.name]], targets[index, number, batch])
                for number, task in enumerate(suite.tasks)
            ],
            1,
        )
        optimizer.zero_grad()
        # A sum over arms: no gradient of one reaches another.
        (losses * counted).sum().backward()
        optimizer.step()
        schedule.step()
    return networks


def judge_networks(world: WorldSuite, *, steps: int) -> dict[str, Any]:
    """Return ``result`` (as ``build_verdict`` gives it), ``oracle`` and ``cpu_seconds``; see :func:`benchmarks.verdicts.running.run_world`.

    Args:
        world: The suite.
        steps: Steps of a training.
    """
    begun = time.process_time()
    suite, few = world.suite, world.rows < ENOUGH_ROWS
    arms = _arms(world)
    networks = _trained(suite, arms, steps, world.seed)
    with torch.no_grad():
        everything = torch.as_tensor(np.asarray(suite.inputs["numeric"])).expand(len(arms), -1, -1)
        outputs = networks(everything)  # [A, N, O]
    places = _columns(suite.tasks)
    answers: dict[tuple[str, int], dict[str, NDArray[Any]]] = {}
    kept: dict[tuple[str, int], dict[str, NDArray[Any]]] = {}
    for arm, output in zip(arms, outputs, strict=True):
        own = arm.tasks[:1] if arm.name == "control" else arm.tasks
        target = kept if arm.name == "control" else answers
        for name in own:
            key = (name if arm.name == "control" else arm.name, arm.number)
            target.setdefault(key, {})[name] = _decoded(suite.task(name), output[:, places[name]])
    for number in range(FOLDS if few else SEEDS):
        answers["constant", number] = _constant(fold_suite(suite, FOLDS, number) if few else suite)
    judged = suite
    if few:
        judged = suite.with_splits(
            {**fold_suite(suite, FOLDS, 0).splits, "test": fold_test_rows(suite, FOLDS, tuple(range(FOLDS)))}
        )
    plans = {plan.name: plan for plan in portfolio(suite.kinds, len(suite.tasks), ("separate", "shared-trunk", "constant"))}
    finals = {name: _finals(judged, name, answers, few, suite) for name in plans}
    controls = {
        task: _finals(judged, task, kept, few, suite, plan="shared-trunk") for task in dict.fromkeys(key for key, _ in kept)
    }
    sizes = {"separate": len(suite.tasks), "shared-trunk": 1}
    result = build_verdict(
        judged.with_splits({name: rows for name, rows in judged.splits.items() if name != "transfer"}),
        finals,
        controls=controls,
        affinity=None,
        ledgers={name: Ledger(parameters_stored=5000 * size) for name, size in sizes.items()},
        plans=plans,
        seed=world.seed,
    )
    rows = suite.splits["transfer"]
    scores = {
        name: {
            number: {
                task.name: score_task(task, np.asarray(suite.targets[task.name][rows]), found[task.name][rows])[
                    default_metric(task)
                ]
                for task in suite.tasks
            }
            for (arm, number), found in answers.items()
            if arm == name
        }
        for name in plans
    }
    control_scores = {
        task: {
            number: score_task(suite.task(task), np.asarray(suite.targets[task][rows]), found[task][rows])[
                default_metric(suite.task(task))
            ]
            for (arm, number), found in kept.items()
            if arm == task
        }
        for task in controls
    }
    return {
        "result": result,
        "oracle": changes_of_scores(suite, scores),
        "control_scores": control_scores,
        "scores": scores,
        "cpu_seconds": time.process_time() - begun,
    }


def _constant(suite: Suite) -> dict[str, NDArray[Any]]:
    found = {}
    for task in suite.tasks:
        target = np.asarray(suite.targets[task.name])
        train = target[suite.splits["train"]]
        train = train[labelled_rows(train)]
        if task.kind == "regression":
            found[task.name] = np.full((len(target), 1), train.mean(), dtype=np.float32)
        elif task.kind == "binary":
            found[task.name] = np.full(len(target), train.mean(), dtype=np.float32)
        else:
            shares = np.bincount(train, minlength=task.size) / max(1, len(train))
            found[task.name] = np.tile(shares.astype(np.float32), (len(target), 1))
    return found


def _finals(
    judged: Suite,
    name: str,
    answers: Mapping[tuple[str, int], Mapping[str, NDArray[Any]]],
    few: bool,
    suite: Suite,
    plan: str = "",
) -> list[FinalRun]:
    """Return the runs of one arm: one with its folds, or one a seed."""
    own = {number: found for (arm, number), found in answers.items() if arm == name}
    tasks = list(next(iter(own.values())))
    if not few:
        val = suite.splits["val"]
        return [
            FinalRun(
                plan_name=plan or name,
                seed=number,
                predictions={task: found[task][judged.splits["test"]] for task in tasks},
                validation={
                    task: score_task(suite.task(task), np.asarray(suite.targets[task][val]), found[task][val]) for task in tasks
                },
            )
            for number, found in own.items()
        ]
    divided = [fold_suite(suite, FOLDS, number).splits for number in sorted(own)]
    test = judged.splits["test"]
    part = np.zeros(len(suite), dtype=np.int64)
    for number, splits in enumerate(divided):
        part[splits["test"]] = number
    predictions = {task: np.stack([own[number][task] for number in sorted(own)])[part[test], test] for task in tasks}
    val_rows = np.concatenate([splits["val"] for splits in divided])
    val_parts = np.concatenate([np.full(len(splits["val"]), number) for number, splits in enumerate(divided)])
    val = {task: np.stack([own[number][task] for number in sorted(own)])[val_parts, val_rows] for task in tasks}
    validation = {task: score_task(suite.task(task), np.asarray(suite.targets[task][val_rows]), val[task]) for task in tasks}
    return [
        FinalRun(
            plan_name=plan or name,
            seed=0,
            predictions=predictions,
            validation=validation,
            validation_parts=fold_scores(suite, val, val_rows, val_parts),
            parts=part[test],
        )
    ]
