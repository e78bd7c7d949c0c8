"""RegMean: the weights of each linear layer that give, over all models' own inputs, answers nearest to theirs.

Paper: Jin et al., "Dataless Knowledge Fusion by Merging Weights of Language Models", ICLR 2023, https://arxiv.org/abs/2212.09849

For inputs ``X_i`` of a linear layer of model ``i`` and its weights ``W_i`` (``[in, out]``), the least squares problem
``min_W sum_i |X_i W - X_i W_i|^2`` has the solution ``(sum_i G_i)^-1 sum_i G_i W_i`` with ``G_i = X_i^T X_i``. Off-diagonal entries
of each ``G_i`` are scaled by ``alpha``. Everything else (biases, norms, embeddings) is averaged.

Gram matrices are summed over batches in float64; what is held is one matrix a layer, whatever the number of rows. They come from
rows and networks, or from files beside the models (``statistics``, kind ``gram``), which ``result=gram`` writes.

Departures: convolutions without groups are linear layers of their patches. Rows count for the models whose tasks they are labelled
for; rows without a label count for all. ``ridge`` is a share of the mean diagonal that keeps the solution at the models' mean where
no input ever differs from zero; the paper has none. Padded positions of a text count as any other.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.interfaces.model_merger import MergeContext, MergeModel, ModelMerger
from graftwork.methods.merging.model_answers import Answering
from graftwork.methods.merging.row_pools import may_belong_to
from graftwork.methods.merging.sources import shape
from graftwork.methods.merging.task_vectors import shared_roles

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["RegMean", "RegMeanConfig", "regression_mean", "stream_grams"]

Array = NDArray[Any]
KIND = "gram"
PREFIX = "gram."


@dataclass(frozen=True, kw_only=True, slots=True)
class RegMeanConfig:
    """Settings of RegMean (Jin et al., 2023)."""

    alpha: float = 0.9
    """Factor on the off-diagonal entries of Gram matrices, in [0, 1]; 0 weighs inputs one by one."""
    ridge: float = 1e-6
    """Pull towards the models' mean, as a share of the mean diagonal of their Gram matrices, at least 0."""
    role: str = "train"
    """Rows that the inputs are taken from; their labels are not used."""
    num_rows: int = 1024
    """Most rows of a model, the first ones."""
    exclude: tuple[str, ...] = ()
    """Shell patterns of tensors that keep the values of the base (without one: the first model)."""
    result: Literal["model", "gram"] = "model"
    """``gram`` returns the Gram matrices of one model in place of a merged one, for ``--statistics gram=...`` later."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha <= 1.0 or not 0.0 <= self.ridge < float("inf") or self.num_rows < 1:
            raise ConfigError(
                "`alpha` must be from 0 to 1, `ridge` at least 0 and `num_rows` at least 1; "
                f"got {self.alpha!r}, {self.ridge!r} and {self.num_rows!r}."
            )


def regression_mean(weights: Sequence[Array], grams: Sequence[Array], *, alpha: float = 0.9, ridge: float = 1e-6) -> Array:
    """Return the merged weights of one linear layer.

    Args:
        weights: Those of the models, each ``[out, *in]``.
        grams: Their Gram matrices, each ``[in, in]`` over the flattened inputs.
        alpha: Factor on off-diagonal entries.
        ridge: See :class:`RegMeanConfig`.

    Returns:
        ``[out, *in]``, float64.
    """
    flats = [np.asarray(weight, np.float64).reshape(len(weight), -1) for weight in weights]
    total, wanted = np.zeros((flats[0].shape[1],) * 2), np.zeros_like(flats[0])
    for flat, gram in zip(flats, grams, strict=True):
        kept = alpha * np.asarray(gram, np.float64)
        np.fill_diagonal(kept, np.diagonal(gram))
        total += kept
        # W_i is [out, in] here, and Gram matrices are symmetric: (G W^T)^T = W G.
        wanted += flat @ kept
    mean = np.mean(flats, axis=0)
    pull = ridge * np.trace(total) / len(total)
    if pull > 0.0:
        total[np.diag_indices_from(total)] += pull
        wanted += pull * mean
    try:
        solved = np.linalg.solve(total, wanted.T).T
    except np.linalg.LinAlgError:
        # Some input is always zero, or depends on others: of all solutions the one nearest to the mean.
        solved = mean + np.linalg.lstsq(total, (wanted - mean @ total).T, rcond=None)[0].T
    return solved.reshape(np.asarray(weights[0]).shape)


def stream_grams(network: nn.Module, batches: Iterator[Any], run: Any) -> dict[str, Tensor]:
    """Return the Gram matrices of the inputs of all linear layers and convolutions without groups, by the name of their weight.

    Args:
        network: In evaluation mode.
        batches: What ``run`` is called with, one after the other; nothing of them is kept.
        run: Calls the network.
    """
    import torch
    from torch import nn
    from torch.nn import functional as F

    grams: dict[str, Tensor] = {}

    def watch(name: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0].detach()
            if isinstance(module, nn.Conv2d):
                padding = module.padding if isinstance(module.padding, tuple) else (0, 0)
                # [B, in, places]: the patches that each place is computed from.
                patches = F.unfold(rows, module.kernel_size, module.dilation, padding, module.stride)
                rows = patches.transpose(1, 2)
            rows = rows.reshape(-1, rows.shape[-1]).double()
            found = rows.T @ rows
            grams[name] = grams[name] + found if name in grams else found

        return module.register_forward_pre_hook(hook)

    handles = []
    for name, module in network.named_modules():
        plain = (
            isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros" and module.padding != "same"
        )
        if isinstance(module, nn.Linear) or plain:
            handles.append(watch(f"{name}.weight" if name else "weight", module))
    try:
        with torch.inference_mode():
            for batch in batches:
                run(batch)
    finally:
        for handle in handles:
            handle.remove()
    return grams


class RegMean(ModelMerger):
    """Merge linear layers by the regression that their inputs pose. Needs no base; without one the first model's names count.

    Args:
        config: Settings; see :class:`RegMeanConfig`.
    """

    def __init__(self, config: RegMeanConfig | None = None) -> None:
        self.config = config or RegMeanConfig()

    def merge(self, base: MergeModel | None, experts: Sequence[MergeModel], context: MergeContext) -> dict[str, Array]:
        """Return the merged tensors, or the Gram matrices of the only model.

        Raises:
            ConfigError: If rows, networks or files are missing, or do not fit.
            DataError: If the models do not fit together, or no row counts for one of them.
        """
        config = self.config
        if config.result == "gram":
            if len(experts) != 1:
                raise ConfigError(f"`result=gram` takes the Gram matrices of one model; there are {len(experts)}.")
            found = self._compute(Answering(experts[0], context.tasks), experts[0], context)
            return {PREFIX + name: value for name, value in found.items()}
        first = experts[0] if base is None else base
        answering = [Answering(model, context.tasks) for model in experts] if all(model.network for model in experts) else []
        roles = shared_roles(first, experts, answering, exclude=config.exclude)
        grams = self._grams(experts, answering, context)
        merged: dict[str, Array] = {name: np.array(first.tensors[name]) for name in roles.kept}
        lacking = []
        for name in (*roles.merged, *roles.averaged):
            values = [np.asarray(model.tensors[name]) for model in experts]
            dtype = np.result_type(np.float32, *(value.dtype for value in values))
            if name in roles.merged and all(name in one for one in grams):
                mean: Array = regression_mean(values, [one[name] for one in grams], alpha=config.alpha, ridge=config.ridge)
            else:
                mean = np.asarray(np.mean(values, axis=0, dtype=np.float64))
                lacking += [name] if values[0].ndim > 1 else []
            merged[name] = np.asarray(mean, dtype)
        if lacking:
            warnings.warn(
                f"{len(lacking)} tensors with two dimensions or more are no weights of linear layers or plain convolutions, and are "
                f"averaged: {', '.join(lacking[:3])}.",
                stacklevel=2,
            )
        return merged

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {"method": "regmean", **asdict(self.config)}

    def _grams(
        self, models: Sequence[MergeModel], answering: Sequence[Answering], context: MergeContext
    ) -> list[Mapping[str, Array]]:
        if not context.statistics.get(KIND):
            if not answering or self.config.role not in context.rows:
                raise ConfigError(
                    "RegMean needs the Gram matrices of each model's inputs: files beside the models (--statistics gram=FILE,FILE, in "
                    "their order), or rows and networks to compute them (--suite, and model folders that graftwork wrote). "
                    "`--set result=gram` with one model and its suite writes such a file."
                )
            return [self._compute(answer, model, context) for answer, model in zip(answering, models, strict=True)]
        found: list[Mapping[str, Array]] = []
        for model, reader in zip(models, context.readers(KIND, len(models)), strict=True):
            names = {name.removeprefix(PREFIX): name for name in reader}
            for plain, name in names.items():
                size = int(np.prod(shape(model.tensors, plain)[1:])) if plain in model.tensors else -1
                if shape(reader, name) != (size, size):
                    raise ConfigError(
                        f"The Gram matrix {name!r} of {model.name} is {list(shape(reader, name))} and does not belong to one of its "
                        "weights. Give the files in the order of the models."
                    )
            found.append({plain: reader[name] for plain, name in names.items()})
        return found

    def _compute(self, answering: Answering, model: MergeModel, context: MergeContext) -> dict[str, Array]:
        names = [task.name for task in answering.tasks]
        if not names:
            answered, offered = ", ".join(answering.answered), ", ".join(task.name for task in context.tasks) or "none"
            raise ConfigError(
                f"{model.name} answers {answered}, and the rows have {offered}. Give a suite with the tasks of the models (--suite)."
            )
        network = answering.network.to(context.device)
        seen = 0

        def own() -> Iterator[Any]:
            nonlocal seen
            for batch in context.batches(self.config.role):
                chosen = may_belong_to(batch, names).nonzero().flatten()[: self.config.num_rows - seen]
                if len(chosen):
                    seen += len(chosen)
                    yield batch.take(chosen)
                if seen >= self.config.num_rows:
                    return

        # All tasks of the rows: their heads are linear layers too.
        grams = stream_grams(network, own(), lambda batch: network(batch.inputs, names))
        if not seen:
            raise DataError(
                f"None of the {self.config.role!r} rows counts for {model.name}: all are labelled for other tasks than "
                f"{', '.join(names)}. Give rows of its tasks, or files (--statistics gram=FILE,FILE)."
            )
        found = {name.removeprefix("inner."): value.cpu().numpy() for name, value in grams.items()}
        return {name: value for name, value in found.items() if name in model.tensors}
