"""Merger: several models tuned from one base become one, without training, tensor by tensor.

How the hardest systems fit:

- TIES trims over the whole flat vector: a first pass samples magnitudes, a second one finds the exact threshold of each model,
  then tensors are merged; its rule for exactly tied signs needs a vote over all parameters, so tied entries are corrected at the
  end.
- Rules that need a second file for each model take readers of those files in their constructor and look the tensor up by
  ``name``; experts and statistics stream together.
- Fisher merging, OT fusion and concrete masks need rows, activations or training, and see whole models: they are
  :class:`graftwork.interfaces.model_merger.ModelMerger`.

``graftwork merge --method NAME`` finds a merger through its card; the keywords of its constructor are the settings (``--set
key=value``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from numpy.typing import NDArray

from graftwork.core.tensor_files import TensorSource

__all__ = ["Merger"]

Array = NDArray[Any]


class Merger(ABC):
    """Works on NumPy views of mapped files, so that merging starts at once and checkpoints larger than memory stream.

    bfloat16, which NumPy lacks, comes as an array-like in float32 that is widened where it is sliced
    (:class:`graftwork.core.bfloat16.WidenedTensor`): rules that go over slices of ``reshape(-1)`` need little memory, others
    work too.

    Methods that need a statistic over the whole model (a global threshold, a norm) ask for passes: while :meth:`needs_pass` is
    true, the driver shows every tensor to :meth:`observe` and then calls :meth:`finish_pass`; merging comes last.
    """

    num_models: ClassVar[tuple[int, int | None]] = (1, None)
    """How many models it takes at least and at most; None is any number. The driver refuses others."""
    needs_base: ClassVar[bool] = True
    """Whether it merges what models changed. Methods that do not can be used without a base: the first model then stands in the
    place of one, for names, shapes and stored types."""
    has_base: bool = True
    """Set by the driver: whether ``base`` is one, and not only the first model."""

    def needs_pass(self) -> bool:
        """Whether the driver has to show all tensors (once more) before merging."""
        return False

    def observe(self, name: str, base: Array, experts: Sequence[Array]) -> None:
        """See one tensor during a pass."""

    def finish_pass(self) -> None:
        """Turn what was seen into statistics."""

    def run_passes(self, names: Sequence[str], tensors: Callable[[str], tuple[Array, Sequence[Array]]]) -> None:
        """Show all tensors as often as :meth:`needs_pass` asks for them. Every merge begins here, also one without a pass: what
        is remembered of an earlier one is forgotten.

        Args:
            names: Names of the tensors that are merged.
            tensors: Returns the base's and the experts' values of one.
        """
        # Asked after every pass: some rules need a second one, with what the first has found.
        while self.needs_pass():
            for name in names:
                self.observe(name, *tensors(name))
            self.finish_pass()

    @abstractmethod
    def merge_tensor(self, name: str, base: Array, experts: Sequence[Array]) -> Array:
        """Return the merged tensor, in the shape of ``base``, float32 or wider; inputs are never changed.

        Args:
            name: Name of the parameter.
            base: Pretrained values.
            experts: The tuned values, one array a model, in the order of the models.
        """

    def corrections(self) -> Iterator[tuple[str, Array, Array]]:
        """Yield ``(name, flat indices, values)`` that only became known after the last tensor was merged."""
        return iter(())

    def settings(self) -> Mapping[str, Any]:
        """Return the settings for the lineage of the merged file: plain values, and ``method``, the name of the rule.

        The driver looks at them before it starts: numbers must be finite, and ``weights`` must have one for each model.
        """
        return {}

    def inputs(self) -> Sequence[TensorSource]:
        """Return what this reads beside the models (statistics, say): the lineage names these files and their hashes."""
        return ()
