"""Carries out a merge stage: one learner a group of tasks, all from one start, merged whenever an answer is asked for.

The groups take turns, a few steps each, so that they have come equally far wherever training is cut. What is merged are the
tensors that training changes and that no task owns: parameters by the plan's rule, running statistics by their mean. Tensors of
a task (its head) are taken from the learner of its group. A merged model is made anew after every slice of training, so that the
race compares merged models from its first rung on; it is derived, and checkpoints hold the groups' learners alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graftwork.core.errors import CheckpointError, ConfigError
from graftwork.core.files import read_json, write_json
from graftwork.core.records import Ledger
from graftwork.core.seeds import Seeds
from graftwork.core.stages.merge import MergeStage
from graftwork.data.suite import Suite
from graftwork.interfaces.learner import Array, Learner, LearnerContext
from graftwork.interfaces.merger import Merger
from graftwork.interfaces.model_merger import MergeContext, MergeModel, ModelMerger
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.weight_delta import Dense, WeightDelta
from graftwork.training.costs import CostMeter
from graftwork.training.devices import on_cpu
from graftwork.training.learned import learned_state
from graftwork.training.learner import NeuralLearner
from graftwork.training.selection import tensor_owners
from graftwork.training.staged import sum_of_costs
from graftwork.training.stages import Earlier

__all__ = ["MergeLearner", "build"]

TURNS = 32
"""Over the horizon, each group trains in about so many turns."""
_STATE = "merge.json"


def build(stage: MergeStage, context: LearnerContext, earlier: Earlier | None) -> MergeLearner:
    """Return the learner."""
    assert earlier is not None, "a merge stage follows others"
    return MergeLearner(stage, context, earlier)


class MergeLearner(Learner):
    """Trains each group of tasks by itself and answers with the merged model. A step is one step of every group.

    Args:
        stage: Groups, and the rule that merges.
        context: The whole suite.
        earlier: Builds the learner of the stages before: a :class:`~graftwork.training.learner.NeuralLearner`.

    Raises:
        ConfigError: If the plan's learner has no weights to merge, nothing that learns is shared, the shared part depends on
            which tasks there are, or a tuner keeps what it learns in factors.
    """

    def __init__(self, stage: MergeStage, context: LearnerContext, earlier: Earlier) -> None:
        super().__init__(context)
        self.stage = stage
        self.groups = stage.partition(context.suite.task_names)
        self._costs, self._merge_costs = CostMeter(), dict[str, float]()
        # Its weights are also the start of every group: models tuned from different starts cannot be merged.
        self._host = _neural(earlier(context), context)  # never trained: it holds the merged weights
        self._owners = tensor_owners(self._host.model)
        self._parameters = {name for name, _ in self._host.model.named_parameters()}
        self._start = {
            name: tensor.cpu().clone() for name, tensor in learned_state(self._host.model).items() if self._owners[name] is None
        }
        self._check_mergeable()
        self.learners = tuple(
            _neural(earlier(replace(context, suite=context.suite.with_tasks(group), start=self._start)), context)
            for group in self.groups
        )
        self._turn = max(1, context.max_steps // TURNS)
        self._is_merged = False

    def _check_mergeable(self) -> None:
        if not self._parameters & set(self._start):
            raise ConfigError(
                f"Plan {self.context.plan.name!r}: no parameter that learns serves several tasks, so there is nothing to merge. "
                "Choose a sharing operator with a shared part and tuning that changes it."
            )
        for delta in self._host.deltas().values():
            if not isinstance(delta, WeightDelta) or any(type(part) is not Dense for part in delta.parts.values()):
                raise ConfigError(
                    f"Plan {self.context.plan.name!r}: its tuner keeps what it learns in parts of its own (low-rank factors, "
                    "say), and merged factors are not merged weights. Choose full tuning, or a tuner that changes weights "
                    "themselves."
                )

    @property
    def step(self) -> int:
        """Steps that every group has finished."""
        return min(learner.step for learner in self.learners)

    @property
    def still_improving(self) -> bool:
        """Whether a group is."""
        return any(learner.still_improving for learner in self.learners)

    @property
    def suite(self) -> Suite:
        """The suite with the inputs that the model reads."""
        return self._host.suite

    @property
    def best_model(self) -> SharedModel:
        """The merged model, in evaluation mode."""
        return self._merged().best_model

    def train(self, until: int, *, on_progress: Callable[[int], None] | None = None) -> None:
        """Train every group until ``step == until``, in turns."""
        # Nothing left to train, but a learner may still owe the validation after its last step.
        reached = self.step
        if until <= reached:
            until = reached
        while True:
            # Up to the next common mark, from the slowest group: a cut in the middle of a turn is made up first. A group may stop
            # before the mark, where more steps do not help it.
            ahead = min(until, (reached // self._turn + 1) * self._turn)
            for learner in self.learners:
                # What was merged before is stale as soon as one group moves.
                self._is_merged = False
                learner.train(ahead, on_progress=None if on_progress is None else partial(self._tell, learner, on_progress))
            reached = ahead
            if ahead >= until:
                return

    def _tell(self, learner: Learner, on_progress: Callable[[int], None], step: int) -> None:
        """Report the mean over the groups, so that the number never goes back."""
        on_progress((step + sum(other.step for other in self.learners if other is not learner)) // len(self.learners))

    def predict(
        self, rows: NDArray[np.int64], tasks: Sequence[str] | None = None, *, inputs: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """Return predictions of the merged model; see :class:`~graftwork.interfaces.learner.Learner`."""
        return self._merged().predict(rows, tasks, inputs=inputs)

    def _merged(self) -> NeuralLearner:
        """Return the host with the groups' weights as they are now, merged."""
        if not self._is_merged:
            with self._costs.running():
                self._host.adopt({**self._own_tensors(), **self._shared_tensors()}, self.step)
            self._is_merged = True
        return self._host

    def _own_tensors(self) -> dict[str, Tensor]:
        """Return each task's tensors, by their names in the host; a model of other tasks may number its heads otherwise."""
        found: dict[str, Tensor] = {}
        for learner in self.learners:
            owners, state = tensor_owners(learner.model), learned_state(learner.best_model)
            for task in learner.suite.task_names:
                here = [name for name, owner in self._owners.items() if owner == task]
                there = [name for name, owner in owners.items() if owner == task]
                found |= {name: state[other] for name, other in zip(here, there, strict=True)}
        return found

    def _shared_tensors(self) -> dict[str, Tensor]:
        start = self._start
        trained = [
            {name: state[name] for name in start} for state in (learned_state(on_cpu(one.best_model)) for one in self.learners)
        ]
        floats = [name for name in start if start[name].is_floating_point()]
        ruled = [name for name in floats if name in self._parameters]
        merged = self._by_rule({name: start[name] for name in ruled}, [{name: one[name] for name in ruled} for one in trained])
        # Running statistics are no weights: a sign vote or a trim would make nonsense of them.
        found = {name: torch.stack([one[name] for one in trained]).mean(dim=0) for name in floats if name not in self._parameters}
        for name, values in merged.items():
            if name not in ruled or values.shape != tuple(start[name].shape):
                raise ConfigError(
                    f"{self.stage.rule[1].path!r} made a tensor {name!r} of shape {list(values.shape)}, which the model of plan "
                    f"{self.context.plan.name!r} has not. In a plan, a merger must keep names and shapes."
                )
            # A copy: rules may return read-only views.
            found[name] = torch.from_numpy(np.array(values)).to(start[name].dtype)
        return found

    def _by_rule(self, base: Mapping[str, Tensor], experts: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Array]:
        arrays = [{name: tensor.numpy() for name, tensor in state.items()} for state in (base, *experts)]
        place, component = self.stage.rule
        rule = place.build(component)
        if isinstance(rule, Merger):
            return merge_tensors(rule, arrays[0], arrays[1:])
        assert isinstance(rule, ModelMerger)
        context = MergeContext(
            tasks=self._host.suite.tasks,
            rows={role: partial(self._host.batches, role) for role in ("train", "val") if len(self._host.suite.splits[role])},
            seed=Seeds(self.context.seed).integer("merge"),
        )
        models = [
            MergeModel(
                name=", ".join(learner.suite.task_names),
                tensors=tensors,
                network=partial(copy.deepcopy, on_cpu(learner.best_model)),
            )
            for learner, tensors in zip(self.learners, arrays[1:], strict=True)
        ]
        found = rule.merge(MergeModel(name="the common start", tensors=arrays[0]), models, context)
        for key, amount in context.costs.items():
            self._merge_costs[key] = self._merge_costs.get(key, 0.0) + amount
        return found

    def save(self, folder: Path) -> None:
        """Write a checkpoint of every group, and what merging cost."""
        for number, learner in enumerate(self.learners):
            learner.save(folder / f"group-{number}")
        write_json(folder / _STATE, {"costs": self._costs.state_dict(), "merging": self._merge_costs})

    def load(self, folder: Path) -> None:
        """Restore a checkpoint.

        Raises:
            CheckpointError: If it is damaged, or belongs to another plan, seed, suite, horizon, backbone or other overrides.
        """
        for number, learner in enumerate(self.learners):
            learner.load(folder / f"group-{number}")
        self._is_merged = False
        try:
            state = read_json(folder / _STATE)
            self._costs.load_state_dict(state["costs"])
            self._merge_costs = {key: float(value) for key, value in state["merging"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"The checkpoint in {folder} cannot be read: {_STATE}: {error}.") from error

    def ledger(self) -> Ledger:
        """Return the costs so far: of all groups and of merging. A step counts once, as with separate models side by side; all
        groups' parameters count as there, and those of the merged model as stored."""
        model = self._merged().ledger()
        each = [learner.training_ledger() for learner in self.learners]
        # Its own line in the sum: merging trains nothing and has no steps unless its method counts some.
        merging = Ledger(
            wall_seconds=self._costs.wall_seconds, cpu_seconds=self._costs.cpu_seconds, peak_rss_bytes=self._costs.peak_rss_bytes
        )
        total = sum_of_costs(replace(model, parameters_trained=0), *each, merging)
        return replace(
            total,
            parameters_total=max(total.parameters_total, total.parameters_trained),
            steps=self.step + int(self._merge_costs.get("steps", 0)),
            samples=max(part.samples for part in each) + int(self._merge_costs.get("samples", 0)),
        )

    def export(self, folder: Path) -> None:
        """Write the merged model; see :class:`~graftwork.interfaces.learner.Learner`."""
        self._merged().export(folder)


def merge_tensors(merger: Merger, base: Mapping[str, Array], experts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Return what a rule makes of tensors in memory, all of which are merged."""
    # Statistics over all tensors (thresholds, say) come before the first tensor is merged.
    merger.run_passes(list(base), lambda name: (base[name], [expert[name] for expert in experts]))
    merged = {name: np.array(merger.merge_tensor(name, base[name], [expert[name] for expert in experts])) for name in base}
    for name, indices, values in merger.corrections():
        merged[name].reshape(-1)[indices] = values
    return merged


def _neural(learner: Learner, context: LearnerContext) -> NeuralLearner:
    if not isinstance(learner, NeuralLearner):
        raise ConfigError(
            f"Plan {context.plan.name!r}: {type(learner).__name__} has no weights that could be merged; a merge stage needs a "
            "neural learner before it."
        )
    return learner
