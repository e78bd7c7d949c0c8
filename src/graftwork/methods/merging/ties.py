"""TIES-Merging: trim small changes, elect one sign per parameter, average only the changes that agree with it.

Paper: Yadav et al., "TIES-Merging: Resolving Interference When Merging Models", NeurIPS 2023, https://arxiv.org/abs/2306.01708

Trimming is global: over all merged entries of one model at once, not per tensor. The exact threshold is found in two streaming
passes: a systematic sample brackets it, then entries inside the bracket are collected. Memory is one tensor plus a few million
sampled magnitudes; of exact ties it is remembered where they are, and their tensors are read once more.

Departures and options (the defaults follow the paper and its released code):

- The released code keeps entries whose magnitude is at least that of the ``int(density * D)``-th largest of ``D``, counted so
  that one more survives; equal magnitudes all survive. ``trim="per-tensor"`` keeps the ``int(density * n)`` largest entries of
  each tensor, as peft does, and what is as large as the smallest of them (peft drops such ties by their place).
- Where trimmed changes cancel exactly, the released code takes the majority sign of the whole model; ``zero_sign="positive"`` is
  peft's and mergekit's rule.
- ``weights`` scale the models' changes. By default signs are elected on unweighted changes and sums are divided by the number of
  agreeing models (peft); ``elect="weighted"`` with ``divide_by="weights"`` is mergekit's form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.interfaces.merger import Merger
from graftwork.methods.merging.threshold import KthMagnitude

__all__ = ["TiesConfig", "TiesMerger"]

Array = NDArray[Any]
_CHUNK = 1 << 17  # entries worked on at once: a few such buffers stay in the processor's cache


@dataclass(frozen=True, kw_only=True, slots=True)
class TiesConfig:
    """Settings of TIES-Merging (Yadav et al., 2023)."""

    density: float = 0.2
    """Share of entries kept by trimming, in (0, 1]; ``K`` in the paper (as a fraction). 1 trims nothing."""
    scaling: float = 1.0
    """Factor on the merged change, ``lambda`` in the paper; 1 without validation data, 0.8 to 2.5 when tuned."""
    weights: tuple[float, ...] | None = None
    """Weight of each model; None weighs all by 1."""
    trim: Literal["global", "per-tensor", "none"] = "global"
    """Over which entries the largest are chosen."""
    elect: Literal["unweighted", "weighted", "none"] = "unweighted"
    """On which changes signs are elected; ``none`` skips the election (an ablation: all non-zero changes are averaged)."""
    divide_by: Literal["count", "weights", "models"] = "count"
    """Divisor of the agreeing sum; ``models`` divides by the number of models (an ablation: plain mean)."""
    zero_sign: Literal["majority", "positive", "negative"] = "majority"
    """Sign where the trimmed changes cancel exactly."""

    def __post_init__(self) -> None:
        if not 0.0 < self.density <= 1.0:
            raise ConfigError(f"`density` must be above 0 and at most 1 (0.2 keeps the largest 20 %); got {self.density!r}.")
        if self.weights is not None and any(weight <= 0 for weight in self.weights):
            raise ConfigError(f"`weights` must be above 0; got {self.weights!r}. Leave a model out instead of weighing it by 0.")


class TiesMerger(Merger):
    """TIES-Merging over tensors of any size.

    Args:
        config: Settings; see :class:`TiesConfig`.
    """

    def __init__(self, config: TiesConfig | None = None) -> None:
        self.config = config or TiesConfig()
        self._forget()

    def _forget(self) -> None:
        self._searches: list[KthMagnitude] = []
        self._started = False
        self._sign_votes = 0
        # Where ties are, not what they become: of models in half precision one entry in twenty can be tied.
        self._tied: dict[str, list[int]] = {}
        self._tensors: Callable[[str], tuple[Array, Sequence[Array]]] | None = None
        self.conflicts = 0
        """Entries where surviving changes of different models have different signs; counted while merging."""
        self.kept_anywhere = 0
        """Entries where at least two models' changes survive trimming."""

    def run_passes(self, names: Sequence[str], tensors: Callable[[str], tuple[Array, Sequence[Array]]]) -> None:
        """Forget the merge before this one, and show all tensors; see :class:`~graftwork.interfaces.merger.Merger`."""
        self._forget()
        self._tensors = tensors
        super().run_passes(names, tensors)

    def needs_pass(self) -> bool:
        """Global trimming needs one pass (small models) or two."""
        if self.config.trim != "global" or self.config.density == 1.0:
            return False
        return not self._started or any(not search.is_done for search in self._searches)

    def observe(self, name: str, base: Array, experts: Sequence[Array]) -> None:
        """Sample, then collect, magnitudes of each model's change."""
        if not self._started:
            self._searches = [KthMagnitude() for _ in experts]
            self._started = True
        flat_base = base.reshape(-1)
        for search, expert in zip(self._searches, experts, strict=True):
            search.observe(expert.reshape(-1), flat_base)

    def finish_pass(self) -> None:
        """Bracket or settle each model's threshold."""
        for search in self._searches:
            # the released code takes the k-th smallest magnitude with k = D - int(density * D), and keeps what is not below it
            search.finish_pass(rank_from_top=min(search.total, int(search.total * self.config.density) + 1))

    def merge_tensor(self, name: str, base: Array, experts: Sequence[Array]) -> Array:
        """Trim, elect and average one tensor."""
        config = self.config
        weights = config.weights or (1.0,) * len(experts)
        if len(weights) != len(experts):
            raise ConfigError(f"`weights` has {len(weights)} numbers for {len(experts)} models; give one per model.")
        dtype = np.result_type(base.dtype, np.float32)
        flat_base, flats = base.reshape(-1), [expert.reshape(-1) for expert in experts]
        thresholds = self._thresholds(flat_base, flats)
        merged = np.empty(flat_base.shape, dtype)
        workspace = _Workspace(len(experts), min(_CHUNK, max(flat_base.size, 1)), dtype)
        for start in range(0, flat_base.size, _CHUNK):
            window = slice(start, start + _CHUNK)
            change = self._merge_chunk(
                name, start, flat_base[window], [flat[window] for flat in flats], thresholds, weights, workspace
            )
            if config.scaling != 1.0:
                np.multiply(change, config.scaling, out=change)
            np.add(flat_base[window], change, out=merged[window])
        return merged.reshape(base.shape)

    def corrections(self) -> Iterator[tuple[str, Array, Array]]:
        """Yield the exactly tied entries once the model's majority sign is known, if it is not the one assumed. Their tensors are
        looked at again, so that no entry is held until then."""
        if self._sign_votes <= 0:
            return
        for name, starts in self._tied.items():
            if self._tensors is None:
                raise RuntimeError(
                    "Ties are looked at again through the tensors of `run_passes`; use the driver in methods.merging.driver."
                )
            base, experts = self._tensors(name)
            flat_base, flats = base.reshape(-1), [expert.reshape(-1) for expert in experts]
            thresholds, weights = self._thresholds(flat_base, flats), self.config.weights or (1.0,) * len(flats)
            dtype = np.result_type(base.dtype, np.float32)
            workspace = _Workspace(len(flats), min(_CHUNK, flat_base.size), dtype)
            for start in starts:
                window = slice(start, start + _CHUNK)
                own = flat_base[window]
                changes, total, positives, negatives = self._trimmed(
                    own, [flat[window] for flat in flats], thresholds, weights, workspace
                )
                tied = np.flatnonzero((total == 0) & (negatives > 0))
                up, buffers = np.ones(tied.size, np.bool_), (np.empty(tied.size, dtype), np.empty(tied.size, dtype))
                means = self._agreeing_mean(changes[:, tied], up, positives[tied], negatives[tied], weights, *buffers)
                yield name, tied + start, own[tied] + self.config.scaling * means

    def settings(self) -> Mapping[str, Any]:
        """Return the settings, and the thresholds that global trimming found."""
        found = [float(search.threshold) for search in self._searches if search.is_done]
        return {"method": "ties", **asdict(self.config), "thresholds": found}

    def _thresholds(self, base: Array, experts: Sequence[Array]) -> list[float]:
        config = self.config
        if config.trim == "none" or config.density == 1.0:
            return [0.0] * len(experts)
        if config.trim == "global":
            if self.needs_pass():
                raise RuntimeError("Global trimming needs the observing passes first; use the driver in methods.merging.driver.")
            return [float(search.threshold) for search in self._searches]
        # Rounded down as in peft; a tensor so small that nothing is kept gets an infinite threshold.
        keep = int(config.density * base.size)
        thresholds = []
        for expert in experts:
            magnitude = np.abs(np.subtract(expert, base, dtype=np.result_type(expert, base, np.float32)))
            thresholds.append(float(np.partition(magnitude, base.size - keep)[base.size - keep]) if keep else np.inf)
        return thresholds

    def _merge_chunk(
        self,
        name: str,
        start: int,
        base: Array,
        experts: Sequence[Array],
        thresholds: Sequence[float],
        weights: Sequence[float],
        workspace: _Workspace,
    ) -> Array:
        config = self.config
        changes, total, positives, negatives = self._trimmed(base, experts, thresholds, weights, workspace)
        self.kept_anywhere += int(np.count_nonzero(positives + negatives >= 2))
        self.conflicts += int(np.count_nonzero((positives > 0) & (negatives > 0)))
        if config.elect == "none":
            total = changes.sum(axis=0, out=total)
            divisor: Array | float = len(weights) if config.divide_by == "models" else np.maximum(positives + negatives, 1)
            return np.divide(total, divisor, out=total)
        # Each entry has one vote for the majority of the whole model, whatever its size.
        self._sign_votes += int(np.count_nonzero(total > 0)) - int(np.count_nonzero(total < 0))
        upwards = total > 0 if config.zero_sign != "positive" else total >= 0
        scratch, result = workspace.scratch[: base.size], workspace.result[: base.size]
        result = self._agreeing_mean(changes, upwards, positives, negatives, weights, scratch, result)
        # Downwards was assumed above; what is tied is looked at again once the vote of all tensors is counted.
        if config.zero_sign == "majority" and bool(((total == 0) & (negatives > 0)).any()):
            self._tied.setdefault(name, []).append(start)
        return result

    def _trimmed(
        self,
        base: Array,
        experts: Sequence[Array],
        thresholds: Sequence[float],
        weights: Sequence[float],
        workspace: _Workspace,
    ) -> tuple[Array, Array, Array, Array]:
        """Return the weighted trimmed changes of a chunk ``[models, entries]``, what signs are elected on, and how many of them are
        positive and negative; all of them lie in the workspace."""
        config = self.config
        size = base.size
        changes, scratch, total = workspace.changes[:, :size], workspace.scratch[:size], workspace.total[:size]
        positives, negatives, flags = workspace.positives[:size], workspace.negatives[:size], workspace.flags[:size]
        for buffer in (total, positives, negatives):
            buffer.fill(0)
        for change, expert, threshold, weight in zip(changes, experts, thresholds, weights, strict=True):
            np.subtract(expert, base, out=change, dtype=change.dtype)  # not in half precision
            if threshold > 0.0:
                np.abs(change, out=scratch)
                # A product, not a mask: no array of the kept entries is made. NaN stays NaN.
                np.multiply(change, np.greater_equal(scratch, threshold, out=flags), out=change)
            positives += np.greater(change, 0, out=flags)
            negatives += np.less(change, 0, out=flags)
            # Added up before `change` itself is weighted below, so that an unweighted election sees plain changes.
            if weight != 1.0 and config.elect == "weighted":
                np.multiply(change, weight, out=scratch)
                total += scratch
            else:
                total += change
            if weight != 1.0:
                np.multiply(change, weight, out=change)
        return changes, total, positives, negatives

    def _agreeing_mean(
        self,
        changes: Array,
        upwards: Array,
        positives: Array,
        negatives: Array,
        weights: Sequence[float],
        scratch: Array,
        result: Array,
    ) -> Array:
        """Average of the changes whose sign is the elected one, 0 where there is none."""
        # No `np.where` and no maximum with a scalar here: on signs that follow no pattern they take many times as long as sums do.
        sign = upwards.astype(result.dtype)
        sign *= 2
        sign -= 1
        zeros = np.zeros_like(result)
        result.fill(0.0)
        divisor = np.zeros_like(result) if self.config.divide_by == "weights" else None
        for change, weight in zip(changes, weights, strict=True):
            # Agreeing changes become positive, the others are cut to 0 by the next line.
            np.multiply(change, sign, out=scratch)
            np.maximum(scratch, zeros, out=scratch)
            result += scratch
            if divisor is not None:
                divisor += weight * (scratch > 0)
        if self.config.divide_by == "models":
            result /= len(weights)
        elif divisor is not None:
            result /= np.where(divisor > 0, divisor, 1)
        else:
            # The difference may wrap around, and the sum wraps back.
            agreeing = (positives - negatives) * upwards + negatives
            agreeing += agreeing == 0
            result /= agreeing
        return np.multiply(result, sign, out=result)


class _Workspace:
    """Buffers that all chunks of a tensor share."""

    def __init__(self, num_models: int, size: int, dtype: np.dtype[Any]) -> None:
        self.changes = np.empty((num_models, size), dtype)
        self.scratch = np.empty(size, dtype)
        self.total = np.empty(size, dtype)
        self.result = np.empty(size, dtype)
        # Counts of models, in the smallest type that holds all of them: uint8 for up to 255.
        counts = np.min_scalar_type(num_models)
        self.positives, self.negatives = np.empty(size, counts), np.empty(size, counts)
        self.flags = np.empty(size, np.bool_)
