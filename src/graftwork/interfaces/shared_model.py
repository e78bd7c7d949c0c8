"""SharedModel: one model for many tasks, encoder -> sharing operator -> heads.

How the hardest systems fit:

- MTLoRA forks one stream into a shared and ``T`` task streams at the end of each stage: ``encode`` returns the tuple of task
  streams; there is no shared representation for representation-level methods, and unasked streams are not computed unless the
  shared stream is made of all.
- M3ViT runs the routed blocks of the trunk once per task with that task's router: ``encode(inputs, tasks)`` loops over the asked
  tasks and returns a tuple; its balance losses leave through ``pop_auxiliary_loss``. TaskExpert's memory lives within one
  ``decode`` call, never in a buffer.
- ESMM's second output is a product of two heads: ``decode`` computes both towers whenever the product is asked, which is
  allowed: what is not *needed* is not computed. R-MTGB is no ``nn.Module`` at all: it enters the race as a ``Learner``, one
  floor up.
- Modular vision models train on batches of several data sets, each task on the rows that have its labels: ``encode_batch`` gets
  the whole training batch. What is asked with ``encode`` is computed for every row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from graftwork.core.batch import Batch

__all__ = ["SharedModel"]


class SharedModel(nn.Module, ABC):
    """What the training loop, balancers, probes and export see of every architecture.

    ``forward`` is ``decode(encode(inputs), tasks)``. ``encode`` ends at the last point that all tasks share: gradients of
    the task losses with respect to its result are what representation-level methods (Rep-MTL, MGDA-UB) work on. Models that
    share nothing return one representation per task from ``encode`` (a tuple) and set ``has_shared_representation`` to False.

    Sharing operators are built as ``Operator(tasks, make_backbone, *, inputs, **settings)``: ``make_backbone()`` gives a
    fresh backbone with the plan's tuner attached, ``inputs`` is :attr:`graftwork.data.suite.Suite.input_specs`.
    """

    has_shared_representation: bool = True
    task_names: tuple[str, ...]
    """Set by the constructor."""

    @abstractmethod
    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor | tuple[Tensor, ...]:
        """Return the shared representation; ``tasks`` lets models that share nothing compute only what is asked."""

    def encode_batch(self, batch: Batch, tasks: Sequence[str] | None = None) -> Tensor | tuple[Tensor, ...]:
        """Return the representation of a training batch; models that use labels, domains or roles of the rows override it.

        The training loop encodes by this method, everything else by :meth:`encode`. ``decode`` of the result must give outputs
        for all rows of the batch; those that a task's loss does not count may be anything finite.
        """
        return self.encode(batch.inputs, tasks)

    @abstractmethod
    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return ``{task: output}``, each as wide as :attr:`TaskSpec.num_outputs`, from ``encode``'s result for the same
        tasks."""

    def forward(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return ``{task: output}`` for the asked tasks (all by default); what is not asked is not computed."""
        return self.decode(self.encode(inputs, tasks), tasks)

    def pop_auxiliary_loss(self) -> Tensor | None:
        """Return and forget the extra loss of the last forward pass (load balance of experts, say); None if there is none."""
        return None

    @abstractmethod
    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield the parameters that only ``task`` uses."""

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that more than one task uses: all that no task owns."""
        owned = {id(parameter) for task in self.task_names for parameter in self.task_parameters(task)}
        return (parameter for parameter in self.parameters() if id(parameter) not in owned)

    def separate_parts(self) -> list[list[nn.Parameter]]:
        """Return the parameters of models inside this one that have nothing in common, so that the size of one's gradient says
        nothing about another.

        One part for each task if nothing that learns is shared; a single part otherwise, unless the operator knows better.
        """
        # One shared parameter that learns couples all tasks.
        if any(parameter.requires_grad for parameter in self.shared_parameters()):
            return [list(self.parameters())]
        return [list(self.task_parameters(task)) for task in self.task_names]
