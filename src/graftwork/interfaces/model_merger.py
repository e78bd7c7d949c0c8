"""ModelMerger: whole models become one, with what it takes beside their weights: data, activations, statistics, other shapes.

The seam beside :class:`graftwork.interfaces.merger.Merger` for rules that cannot look at one tensor at a time. How the hardest
systems fit:

- OT fusion aligns the neurons of models by their activations: it takes networks (:meth:`MergeModel.build`) and rows
  (:meth:`MergeContext.batches`), may do without a base, and may return other shapes than any of its models has.
- Concrete masks and AdaMerging learn coefficients on unlabelled rows: they substitute weights with
  ``torch.func.functional_call`` in one built network, with the seed and device of the context, and count their steps.
- Fisher merging takes the Fisher information of each model from a file beside it (:meth:`MergeContext.readers`), or computes it
  from its network and rows; it searches coefficients on validation rows, and needs no base.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.tensor_files import TensorSource

if TYPE_CHECKING:
    from torch import nn

    from graftwork.core.batch import Batch
    from graftwork.core.records import TaskSpec

__all__ = ["MergeContext", "MergeModel", "ModelMerger"]

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeModel:
    """One model that goes in."""

    name: str
    """How the user knows it, for messages."""
    tensors: Mapping[str, Array]
    """Its weights; those of files are read when they are asked for."""
    network: Callable[[], nn.Module] | None = None
    """Builds the network with these weights; None if only the weights are known."""

    def build(self) -> nn.Module:
        """Return a new network with these weights, in evaluation mode.

        Raises:
            ConfigError: If only the weights are known.
        """
        if self.network is None:
            raise ConfigError(
                f"This method needs the networks, and {self.name} holds weights only. Give model folders that graftwork wrote "
                "(with config.json), or pass `networks` in Python."
            )
        return self.network().eval()


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeContext:
    """What a merge may use beside the models, and where it counts what it cost."""

    tasks: Sequence[TaskSpec] = ()
    """Tasks of the rows; empty without data."""
    rows: Mapping[str, Callable[[int], Iterator[Batch]]] = field(default_factory=dict)
    """Loaders by role (``"train"``, ``"val"``): given a batch size, one pass over the rows in their order. Test rows are never
    among them."""
    statistics: Mapping[str, Sequence[Mapping[str, Array]]] = field(default_factory=dict)
    """Readers of files beside the models, by what they hold: one for each model, in the order of the models."""
    device: str = "cpu"
    seed: int = 0
    """Root of everything random; equal seeds give equal results."""
    costs: dict[str, float] = field(default_factory=dict)
    """What was counted, by name; fields of :class:`graftwork.core.records.Ledger` go into the ledger."""

    def batches(self, role: str, batch_size: int = 256) -> Iterator[Batch]:
        """Yield the rows of one role in batches on :attr:`device`, and count them as ``samples``.

        Raises:
            ConfigError: If there are no such rows.
        """
        if role not in self.rows:
            there = f"there are rows for {', '.join(self.rows)}" if self.rows else "no data was given"
            raise ConfigError(f"This method needs rows for {role!r}, but {there}. Give data with --suite, or `suite` in Python.")
        for batch in self.rows[role](batch_size):
            # Counted when they are handed out: a method that stops early pays for what it has read.
            self.count("samples", len(batch))
            yield batch.to(self.device)

    def readers(self, kind: str, num_models: int) -> Sequence[Mapping[str, Array]]:
        """Return the statistics of one kind, one reader for each model.

        Raises:
            ConfigError: If there are none, or not one for each model.
        """
        found = self.statistics.get(kind, ())
        if len(found) != num_models:
            raise ConfigError(
                f"This method needs {kind!r} statistics for each of the {num_models} models; there are {len(found)}. "
                f"Give them with --statistics {kind}=FILE,FILE, in the order of the models."
            )
        return found

    def count(self, name: str, amount: float = 1.0) -> None:
        """Add to what was counted under a name: ``steps``, ``samples``, or one of the method's own."""
        self.costs[name] = self.costs.get(name, 0.0) + amount


class ModelMerger(ABC):
    """Merges whole models. Weights that do not fit into memory together are the implementation's business: it reads them by
    name."""

    @abstractmethod
    def merge(self, base: MergeModel | None, experts: Sequence[MergeModel], context: MergeContext) -> Mapping[str, Array]:
        """Return the merged tensors by name; no input is changed.

        Args:
            base: What the models were tuned from; None if they come from nowhere in common.
            experts: The models, at least one.
            context: Rows, statistics, device, seed, and where costs are counted.

        Returns:
            NumPy arrays. Names and shapes may differ from those of the models; where a name is one of the base's (or the first
            model's), values are stored in the type that it has there.

        Raises:
            ConfigError: If the context lacks something that the method needs.
            DataError: If the models do not fit together.
        """

    def settings(self) -> Mapping[str, Any]:
        """Return the settings for the lineage of the merged file."""
        return {}

    def inputs(self) -> Sequence[TensorSource]:
        """Return what this reads beside the models (statistics, say): the lineage names these files and their hashes."""
        return ()
