"""Fisher merging: average models with their diagonal Fisher information as weights.

Paper: Matena and Raffel, "Merging Models with Fisher-Weighted Averaging", NeurIPS 2022, https://arxiv.org/abs/2111.09832

The first model is the *target*: the result has its names, heads and stored types, and is judged on its tasks. Information comes
from files (``statistics``, kind ``fisher``), or is computed from rows and networks: each model counts the rows that have a label of
one of its tasks, and those without any label; labels themselves are not looked at, the answers are the model's own.

Departures and options (the defaults follow the paper and its released code):

- Information is scaled to norm 1 over all merged entries (``normalize``), and floored for the target only, so that an entry that no
  model needs keeps the target's value (``favor_target``).
- Parameters that belong to one task are merged only if all models answer the same tasks; so are tensors that some model lacks or
  has in another shape. What is not merged keeps the target's values. Running statistics are averaged with the coefficients.
- A task's information is in the units of its loss (see :mod:`graftwork.tasks.output_fisher`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.interfaces.model_merger import MergeContext, MergeModel, ModelMerger
from graftwork.methods.merging.coefficients import coefficient_points, search_coefficients
from graftwork.methods.merging.fisher_mean import fisher_mean, information_scale
from graftwork.methods.merging.model_answers import Answering
from graftwork.methods.merging.sources import is_float, lazy, shape
from graftwork.methods.merging.task_arithmetic import check_weights
from graftwork.methods.merging.tensor_roles import TensorRoles, assign_roles

__all__ = ["FisherConfig", "FisherMerging"]

Array = NDArray[Any]
Tensors = Mapping[str, Array]
KIND = "fisher"
PREFIX = "fisher."


@dataclass(frozen=True, kw_only=True, slots=True)
class FisherConfig:
    """Settings of Fisher merging (Matena and Raffel, 2022)."""

    weights: tuple[float, ...] | None = None
    """Coefficient of each model, ``lambda`` in the paper, at least 0; None weighs all alike, or searches (``trials``)."""
    trials: int = 0
    """Coefficients tried on the validation rows, the target alone among them; 0 tries none. The paper tries 50 to 75."""
    concentration: float = 1.0
    """Of the Dirichlet distribution that coefficients of three models and more are drawn from."""
    information: Literal["fisher", "none"] = "fisher"
    """``none`` weighs all entries alike (isotropic merging, the baseline): needs no rows, unless coefficients are searched."""
    normalize: bool = True
    """Whether each model's information is scaled to norm 1."""
    floor: float = 1e-6
    """Least information of an entry, after scaling."""
    favor_target: bool = True
    """Whether only the target has this floor; otherwise all models have."""
    num_rows: int = 1024
    """Most rows that a model's information is taken from."""
    num_samples: int = 0
    """Answers drawn for each row; 0 sums over all answers (exact; for many classes draw a few)."""
    role: str = "train"
    """Rows that the information is taken from."""
    exclude: tuple[str, ...] = ()
    """Shell patterns of tensors that keep the target's values, such as ``heads.*``."""
    vectorised: bool = True
    """Whether rows are worked on together; networks that route rows by value need false, which is slower."""
    result: Literal["model", "fisher"] = "model"
    """``fisher`` returns the information of one model instead of a merged one, for ``--statistics fisher=...`` later."""

    def __post_init__(self) -> None:
        check_weights(self.weights)
        if self.weights is not None and (min(self.weights, default=0.0) < 0.0 or sum(self.weights) <= 0.0):
            raise ConfigError(f"`weights` must be at least 0 and not all 0; got {self.weights!r}.")
        if self.weights is not None and self.trials:
            raise ConfigError("`weights` are given and `trials` asks to search them. Leave one of the two out.")
        if self.trials < 0 or self.num_rows < 1 or self.num_samples < 0 or self.floor < 0.0:
            raise ConfigError(
                "`trials`, `num_samples` and `floor` must be at least 0, `num_rows` at least 1; "
                f"got {self.trials!r}, {self.num_samples!r}, {self.floor!r} and {self.num_rows!r}."
            )


class FisherMerging(ModelMerger):
    """Merge models with diagonal Fisher information as weights. The base takes no part; name it among the models to merge it.

    Needs for each model a file of information (:attr:`MergeContext.statistics`, kind ``fisher``, with the names of its tensors,
    or these behind ``fisher.``), or networks and rows. Searched coefficients need networks, and validation rows with labels.

    Args:
        config: Settings; see :class:`FisherConfig`.
    """

    def __init__(self, config: FisherConfig | None = None) -> None:
        self.config = config or FisherConfig()
        self.weights: tuple[float, ...] | None = self.config.weights
        """Coefficients of the last merge, sum 1; before that those of the settings."""

    def merge(self, base: MergeModel | None, experts: Sequence[MergeModel], context: MergeContext) -> dict[str, Array]:
        """Return the merged tensors, or the information of the only model.

        Raises:
            ConfigError: If rows, networks, files or settings are missing or do not fit.
            DataError: If the models do not fit together, or their information is not usable.
        """
        config = self.config
        check_weights(config.weights, len(experts))
        if config.result == "fisher":
            if len(experts) != 1:
                raise ConfigError(f"`result=fisher` takes the information of one model; there are {len(experts)}.")
            return {PREFIX + name: value for name, value in self._compute(experts[0], None, context).items()}
        roles = self._roles(experts, context)
        found = None if config.information == "none" else self._information(experts, roles, context)
        scales = [1.0] * len(experts)
        if found is not None:
            # Computed without `normalize` too: it is also what refuses negative or all-zero information.
            norms = [information_scale(part, roles.merged, model.name) for part, model in zip(found, experts, strict=True)]
            scales = norms if config.normalize else scales
        floors = [config.floor if index == 0 or not config.favor_target else 0.0 for index in range(len(experts))]

        def merged(weights: Sequence[float]) -> Iterator[tuple[str, Array]]:
            for name in roles.merged:
                values = [lazy(model.tensors, name) for model in experts]
                parts = None if found is None else [lazy(part, name) for part in found]
                yield name, fisher_mean(values, parts, weights, scales=scales, floors=floors)
            for name in roles.averaged:
                # Running statistics have no gradient and so no information.
                yield name, fisher_mean([model.tensors[name] for model in experts], None, weights)

        self.weights = self._coefficients(experts, merged, context)
        kept = {name: np.array(experts[0].tensors[name]) for name in roles.kept}
        return {**kept, **dict(merged(self.weights))}

    def settings(self) -> Mapping[str, Any]:
        """Return the settings, and the coefficients once they are known."""
        return {"method": "fisher-merging", **asdict(self.config), "weights": self.weights}

    def _roles(self, models: Sequence[MergeModel], context: MergeContext) -> TensorRoles:
        """Return which tensors are merged: parameters that all models share, in name, shape and task."""
        target, *others = models
        own = self._task_owned(models, context)
        unshared = [
            name
            for name in target.tensors
            if name not in own
            and is_float(target.tensors, name)
            and any(name not in other.tensors or shape(other.tensors, name) != shape(target.tensors, name) for other in others)
        ]
        patterns = [*self.config.exclude, *map(_literal, [*unshared, *own])]
        roles = assign_roles(target.tensors, [model.tensors for model in models], exclude=patterns)
        if unshared:
            warnings.warn(
                f"{len(unshared)} tensors are not shared by all models and keep those of {target.name}: {unshared[0]} ...",
                stacklevel=3,
            )
        for note in roles.notes:
            warnings.warn(note, stacklevel=3)
        return roles

    def _task_owned(self, models: Sequence[MergeModel], context: MergeContext) -> list[str]:
        if len(models) < 2 or any(model.network is None for model in models):
            return []
        answering = [Answering(model, context.tasks) for model in models]
        # Equal tasks: heads mean the same in all models and are merged like the rest.
        if len({answer.answered for answer in answering}) == 1:
            return []
        return answering[0].owned()

    def _information(self, models: Sequence[MergeModel], roles: TensorRoles, context: MergeContext) -> list[Tensors]:
        if not context.statistics.get(KIND):
            if any(model.network is None for model in models) or self.config.role not in context.rows:
                raise ConfigError(
                    "Fisher merging needs the Fisher information of each model: files beside the models (--statistics "
                    "fisher=FILE,FILE, in their order), or rows and networks to compute it (--suite, and model folders that graftwork "
                    "wrote). `--set result=fisher` with one model and its suite writes such a file; `--set information=none` "
                    "merges without."
                )
            return [self._compute(model, roles.merged, context) for model in models]
        found: list[Tensors] = []
        for model, reader in zip(models, context.readers(KIND, len(models)), strict=True):
            names = {name: name if name in reader else PREFIX + name for name in roles.merged}
            wrong = [
                name
                for name, stored in names.items()
                if stored not in reader or shape(reader, stored) != shape(model.tensors, name)
            ]
            if wrong:
                raise ConfigError(
                    f"The Fisher information of {model.name} lacks {len(wrong)} of {len(names)} tensors, or has them in another "
                    f"shape: {', '.join(wrong[:5])}. Give the files in the order of the models."
                )
            found.append({name: lazy(reader, stored) for name, stored in names.items()})
        return found

    def _compute(self, model: MergeModel, names: Sequence[str] | None, context: MergeContext) -> dict[str, Array]:
        config = self.config
        return Answering(model, context.tasks).information(
            context, config.role, names, num_rows=config.num_rows, num_samples=config.num_samples, vectorised=config.vectorised
        )

    def _coefficients(
        self,
        models: Sequence[MergeModel],
        merged: Callable[[Sequence[float]], Iterator[tuple[str, Array]]],
        context: MergeContext,
    ) -> tuple[float, ...]:
        config = self.config
        given = config.weights or (1.0,) * len(models)
        if not config.trials:
            return tuple(weight / sum(given) for weight in given)
        target = Answering(models[0], context.tasks)
        points = coefficient_points(len(models), config.trials, seed=context.seed, concentration=config.concentration)

        def score(weights: tuple[float, ...]) -> float:
            context.count("trials")
            # Every trial overwrites all merged tensors, so nothing is left of the last one.
            target.load(merged(weights))
            return target.score(context, "val")

        return search_coefficients(points, score).weights


def _literal(name: str) -> str:
    """Return a shell pattern that fits one name only."""
    # A bracket around a special letter takes it literally.
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
