"""Diagonal Fisher information of a network's parameters, from gradients of single rows.

Entry ``i`` is the mean over rows, and over the answers that the network itself gives, of ``(d log p(answer) / d parameter_i)^2``.
Squares are taken row by row: the square of a batch's mean gradient is something else, and so is the square for true labels (the
"empirical" Fisher). With ``g`` the scores of :func:`graftwork.tasks.output_fisher.output_scores`, it is the sum of the squares of
``J^T g``, ``J`` the Jacobian of the raw outputs: one pass forward and as many backward as there are scores, vectorised over rows
and scores by ``torch.func``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.records import TaskSpec
from graftwork.nn.modes import evaluating
from graftwork.tasks.output_fisher import output_scores

__all__ = ["diagonal_fisher", "squared_gradients"]

WORKING_BYTES = 1 << 26


def diagonal_fisher(
    network: nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    tasks: Sequence[TaskSpec],
    *,
    parameters: Collection[str] | None = None,
    num_samples: int = 0,
    generator: torch.Generator | None = None,
    working_bytes: int = WORKING_BYTES,
    vectorised: bool = True,
) -> dict[str, Tensor]:
    """Return the diagonal of the Fisher information, mean over rows and summed over tasks.

    The network works in evaluation mode (no dropout, stored running statistics) and is left as it was. Labels are not needed.

    Args:
        network: Called as ``network(inputs, [task])``, gives ``{task: raw output}``.
        batches: Inputs of ``B`` rows each; nothing is kept of a batch once it is done.
        tasks: Tasks whose answers count; given the inputs, they are taken as independent.
        parameters: Names of the parameters; None takes all that are real numbers.
        num_samples: Answers drawn for each row; 0 takes the exact expectation, which costs one backward pass for each output.
        generator: Draws the answers.
        working_bytes: Memory that gradients of single rows may take, beside that of one gradient.
        vectorised: Whether rows and answers are worked on together. Networks that decide by values (routing to experts) cannot
            be; the loop over rows gives the same numbers up to rounding.

    Returns:
        ``{name: tensor}`` like the parameters, at least 0.

    Raises:
        ConfigError: If a parameter or output does not exist, a task has no Fisher information, or the network cannot be
            vectorised.
        DataError: If there are no rows.
    """
    chosen = _choose(network, parameters)
    total = {name: torch.zeros_like(value) for name, value in chosen.items()}
    num_rows = 0
    with evaluating(network):
        for inputs in batches:
            num_rows += _num_rows(inputs)
            for task in tasks:
                with torch.no_grad():
                    outputs = network(inputs, [task.name])
                if task.name not in outputs:
                    raise ConfigError(f"The network gives no output for the task {task.name!r}; it gives {', '.join(outputs)}.")
                # [S, B, *output]
                scores = output_scores(task, outputs[task.name], num_samples=num_samples, generator=generator)
                for name, part in squared_gradients(
                    network, chosen, inputs, task.name, scores, working_bytes=working_bytes, vectorised=vectorised
                ).items():
                    total[name] += part
    if num_rows == 0:
        raise DataError("There are no rows to take the Fisher information from.")
    return {name: value / num_rows for name, value in total.items()}


def squared_gradients(
    network: nn.Module,
    parameters: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    task: str,
    scores: Tensor,
    *,
    working_bytes: int = WORKING_BYTES,
    vectorised: bool = True,
) -> dict[str, Tensor]:
    """Return the squared gradients of ``<score, output>``, taken for each row and score apart and then summed.

    Args:
        network: See :func:`diagonal_fisher`; in evaluation mode.
        parameters: What to differentiate by, by name.
        inputs: Inputs of ``B`` rows.
        task: Whose output.
        scores: ``[S, B, *output]``, without gradient.
        working_bytes: See :func:`diagonal_fisher`; so many rows and scores are taken at a time that their gradients fit.
        vectorised: See :func:`diagonal_fisher`.

    Raises:
        ConfigError: If the network cannot be vectorised.
    """
    parameters = {name: value.detach() for name, value in parameters.items()}
    size = sum(value.numel() * value.element_size() for value in parameters.values())
    at_once = max(1, working_bytes // max(1, 2 * size))  # gradients and their squares
    num_scores, num_rows = scores.shape[:2]
    # All scores of a row together where they fit; for many scores one row at a time, in several steps.
    step, rows_at_once = min(num_scores, at_once), max(1, at_once // max(1, num_scores))
    total = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for first in range(0, num_rows, rows_at_once):
        rows = slice(first, first + rows_at_once)
        part = {name: value[rows] for name, value in inputs.items()}
        for start in range(0, num_scores, step):
            found = (_together if vectorised else _one_by_one)(
                network, parameters, part, task, scores[start : start + step, rows]
            )
            for name, value in found.items():
                total[name] += value
    return total


def _together(
    network: nn.Module, parameters: dict[str, Tensor], inputs: Mapping[str, Tensor], task: str, scores: Tensor
) -> dict[str, Tensor]:
    def of_row(row: dict[str, Tensor], score: Tensor) -> dict[str, Tensor]:
        def output(values: dict[str, Tensor]) -> Tensor:
            # vmap takes the row axis away, the network wants a batch.
            alone = {name: value.unsqueeze(0) for name, value in row.items()}
            answered: dict[str, Tensor] = functional_call(network, values, (alone, [task]))
            return answered[task][0]

        pull = vjp(output, parameters)[1]
        # One backward pass for all scores of the row: [S, *parameter].
        (gradients,) = vmap(pull)(score)
        return {name: gradient.square().sum(dim=0) for name, gradient in gradients.items()}

    try:
        with torch.no_grad():  # no graph beside that of `vjp`: parameters that were not chosen may learn
            # Squared before the sum over rows. `scores` is [S, B, ...], so its rows are on axis 1.
            squares = vmap(of_row, in_dims=(0, 1))(dict(inputs), scores)
    except RuntimeError as error:
        raise ConfigError(
            f"{type(network).__name__} cannot work on several rows apart and together ({_first_line(error)}). Set `vectorised` to "
            "false: rows are then taken one by one."
        ) from error
    return {name: value.sum(dim=0) for name, value in squares.items()}


def _one_by_one(
    network: nn.Module, parameters: dict[str, Tensor], inputs: Mapping[str, Tensor], task: str, scores: Tensor
) -> dict[str, Tensor]:
    total = {name: torch.zeros_like(value) for name, value in parameters.items()}
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    for row in range(scores.shape[1]):
        with torch.enable_grad():
            answered = functional_call(network, leaves, ({name: value[row : row + 1] for name, value in inputs.items()}, [task]))
        for score in scores[:, row]:
            # `allow_unused`: another task's head has no part in this output.
            gradients = torch.autograd.grad(answered[task][0], list(leaves.values()), score, retain_graph=True, allow_unused=True)
            for value, gradient in zip(total.values(), gradients, strict=True):
                if gradient is not None:
                    value += gradient.square()
    return total


def _choose(network: nn.Module, names: Collection[str] | None) -> dict[str, Tensor]:
    found = {name: value.detach() for name, value in network.named_parameters()}
    if names is None:
        return {name: value for name, value in found.items() if value.is_floating_point()}
    unknown = sorted(set(names) - set(found))
    if unknown:
        raise ConfigError(
            f"The network has no parameters {', '.join(unknown[:5])}; it has {len(found)}, such as {next(iter(found), 'none')}."
        )
    return {name: value for name, value in found.items() if name in set(names)}


def _num_rows(inputs: Mapping[str, Tensor]) -> int:
    return int(next(iter(inputs.values())).shape[0]) if inputs else 0


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
