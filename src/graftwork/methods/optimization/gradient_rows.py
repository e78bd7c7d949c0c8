"""One preallocated ``[T, P]`` buffer whose rows are filled by ``T`` backward passes.

Gradients are copied into their row as soon as a parameter's is complete and freed at once, so the peak is the buffer plus the
largest
single parameter. The buffer lives on between steps: no new pages, no page faults.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

__all__ = ["GradientRows"]


class GradientRows:
    """Buffer for the gradients of ``num_tasks`` losses with respect to some parameters.

    Args:
        parameters: What the gradients are taken of; several dtypes are fine, the widest is used for all.
        num_tasks: Number of rows.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], num_tasks: int) -> None:
        self.parameters = list(parameters)
        self._identity = _identity(parameters)
        dtype = self.parameters[0].dtype
        for parameter in self.parameters:
            dtype = torch.promote_types(dtype, parameter.dtype)
        width = sum(parameter.numel() for parameter in self.parameters)
        self.matrix = torch.empty(num_tasks, width, dtype=dtype, device=self.parameters[0].device)
        # Made once: the buffer lives for many steps.
        self._views = [self.split(row) for row in self.matrix]

    def fits(self, parameters: Sequence[nn.Parameter], num_tasks: int) -> bool:
        """Return whether the buffer can be used again for these parameters and this number of tasks."""
        return num_tasks == len(self.matrix) and _identity(parameters) == self._identity

    def split(self, vector: Tensor) -> list[Tensor]:
        """Return views of a ``[P]`` vector in the parameters' shapes."""
        parts = vector.split([parameter.numel() for parameter in self.parameters])
        return [part.view_as(parameter) for part, parameter in zip(parts, self.parameters, strict=True)]

    def release(self) -> None:
        """Give parameters a copy of gradients that are views of the rows, which are about to be overwritten."""
        for parameter in self.parameters:
            parameter.grad = self._own_copy(parameter.grad)

    def write(self, task: int, gradients: Sequence[Tensor | None]) -> None:
        """Copy one task's gradients into its row; None counts as zero."""
        for view, gradient in zip(self._views[task], gradients, strict=True):
            if gradient is None:
                view.zero_()
            else:
                view.copy_(gradient.to_dense() if gradient.is_sparse else gradient)

    @contextlib.contextmanager
    def recording(self, *, add: bool = False) -> Iterator[Callable[[int], contextlib.AbstractContextManager[None]]]:
        """Divert gradients of the parameters into the rows.

        Yields a function: within ``with into_row(t):`` a backward pass fills row ``t``. Gradients that the parameters had before
            are put
        back afterwards, unchanged.

        Args:
            add: Add to what the rows hold, in place of overwriting it.
        """
        earlier = [self._own_copy(parameter.grad) for parameter in self.parameters]
        state: dict[str, list[Tensor]] = {"views": []}
        filled: set[int] = set()

        def hook_for(index: int) -> Callable[[Tensor], None]:
            def copy_and_free(parameter: Tensor) -> None:
                gradient = parameter.grad
                if gradient is not None:
                    dense = gradient.to_dense() if gradient.is_sparse else gradient
                    state["views"][index].add_(dense) if add else state["views"][index].copy_(dense)
                    parameter.grad = None
                    filled.add(index)

            return copy_and_free

        @contextlib.contextmanager
        def into_row(task: int) -> Iterator[None]:
            state["views"] = self._views[task]
            filled.clear()
            yield
            for index, view in enumerate(self._views[task]):
                if index not in filled and not add:  # this loss does not depend on the parameter
                    view.zero_()

        handles = []
        try:
            for index, parameter in enumerate(self.parameters):
                parameter.grad = None
                handles.append(parameter.register_post_accumulate_grad_hook(hook_for(index)))
            yield into_row
        finally:
            for handle in handles:
                handle.remove()
            for parameter, gradient in zip(self.parameters, earlier, strict=True):
                parameter.grad = gradient

    def add_to_gradients(self, direction: Tensor) -> None:
        """Add a ``[P]`` vector to the parameters' ``.grad``; where there is none, the vector's memory becomes the gradient,
        without a copy."""
        for parameter, part in zip(self.parameters, self.split(direction), strict=True):
            if parameter.grad is None:
                parameter.grad = part.to(parameter.dtype)
            else:
                parameter.grad.add_(part)

    def _own_copy(self, gradient: Tensor | None) -> Tensor | None:
        """A gradient left from an earlier step may be a view of this buffer, which is about to be overwritten."""
        if gradient is None or gradient.untyped_storage().data_ptr() != self.matrix.untyped_storage().data_ptr():
            return gradient
        return gradient.clone()


def _identity(parameters: Sequence[nn.Parameter]) -> tuple[tuple[int, torch.device, torch.dtype], ...]:
    """Return which parameters these are and where they live: a model that moves keeps its parameters."""
    return tuple((id(parameter), parameter.device, parameter.dtype) for parameter in parameters)
