"""A short sequence of tokens per row, all of them predicted at once from the row. Loss: cross-entropy per token.

Each place of the sequence has its own probabilities, given the row: for codes, tags in order, short labels. (An answer for each
step of an input sequence is ``multiclass`` over ``steps``.) A sequence ends with the end token, class 0; what follows is
padding, -1, which no loss or metric sees.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graftwork.core.records import TaskSpec
from graftwork.data.reading.target_cells import InferredTask, TargetCells, TargetRequest
from graftwork.data.reading.token_cells import END, token_target
from graftwork.interfaces.metric import Array
from graftwork.interfaces.task_kind import ColumnCount, TaskKind
from graftwork.tasks.answers import class_names
from graftwork.tasks.metrics import tokens

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KIND", "Sequence"]


class Sequence(TaskKind):
    """Targets ``[N, L]`` int64, class of each token, -1 for padding and where the row has no label; ``size * L`` logits.

    ``classes`` holds the tokens, the end token first; ``details["length"]`` is L, the end token included. Answers are
    probabilities ``[N, size, L]``.
    """

    name = "sequence"
    words = "sequence of tokens"
    metrics = (tokens.TOKEN_ACCURACY, tokens.PERPLEXITY, tokens.SEQUENCE_ACCURACY)
    reads_columns: ClassVar[ColumnCount] = "one"
    reads_lists = True

    def length(self, spec: TaskSpec) -> int:
        """Return the number of places."""
        return int(spec.details["length"])

    def problems(self, spec: TaskSpec) -> SequenceOf[str]:
        """Return a problem if the length is missing."""
        length = spec.details.get("length")
        if isinstance(length, int) and length >= 1:
            return ()
        return (f"details['length'] must say how many tokens a sequence has at most, at least 1; got {length!r}.",)

    def num_outputs(self, spec: TaskSpec) -> int:
        """Return ``size * L``."""
        return spec.size * self.length(spec)

    def answer_shape(self, spec: TaskSpec, target_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return ``[N, size, L]``."""
        return (target_shape[0], spec.size, self.length(spec))

    # --- learning ---

    def _logits(self, spec: TaskSpec, output: Tensor) -> Tensor:
        return output.unflatten(1, (spec.size, self.length(spec)))

    def loss(self, spec: TaskSpec, output: Tensor, target: Tensor, *, robust: bool = False) -> Tensor:
        """Return the cross-entropy, mean over tokens."""
        from torch.nn import functional as F

        total = F.cross_entropy(self._logits(spec, output), target, ignore_index=-1, reduction="sum")
        return total / (target >= 0).sum().clamp(min=1)

    def label_count(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the number of tokens."""
        return (target >= 0).sum()

    def prior_loss(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the entropy of the tokens' frequencies at each place, mean over tokens."""
        from torch.nn import functional as F

        from graftwork.tasks.tensors import entropy

        # [L, size]: how often each token stands at each place.
        counts = F.one_hot(target.clamp(min=0), spec.size).mul((target >= 0).unsqueeze(2)).sum(dim=0).double()
        places = counts.sum(dim=1)
        # Late places have few tokens, so each place weighs by its tokens. Without any token it is 0 / 0, and NaN.
        return (entropy(counts / places.clamp(min=1).unsqueeze(1)).sum(dim=1) * places).sum() / places.sum()

    def decode(self, spec: TaskSpec, output: Tensor) -> Tensor:
        """Return the probability of each token at each place."""
        return self._logits(spec, output).softmax(dim=1)

    def divergence(self, spec: TaskSpec, reference: Tensor, output: Tensor) -> Tensor:
        """Return the divergence between categorical distributions, mean over rows and places."""
        from graftwork.tasks.tensors import categorical_divergence

        return categorical_divergence(self._logits(spec, reference), self._logits(spec, output))

    # --- data ---

    def read_column(self, request: TargetRequest, cells: TargetCells, reason: str) -> InferredTask:
        """Return the task of a column of token lists, or of texts whose tokens are parted by blanks.

        Raises:
            DataError: If there is no token, one that is not among those given, or more tokens or places than can be learned.
        """
        target, names = token_target(request.name, cells.values, request.classes)
        spec = TaskSpec(
            name=request.name,
            kind=self.name,
            size=len(names),
            classes=names,
            columns=request.columns,
            metric=request.metric,
            details={"length": target.shape[1]},
        )
        return InferredTask(spec, f"{reason}; {len(names) - 1} different tokens, at most {target.shape[1] - 1} in a row", target)

    # --- people ---

    def _read(self, spec: TaskSpec, row: Array) -> list[str]:
        """Return the tokens of one row of class numbers, up to its end."""
        names, found = class_names(spec, spec.size), []
        for index in row.tolist():
            if index < 0 or names[index] == END:
                break
            found.append(names[index])
        return found

    def _shares(self, values: Array) -> Array:
        """Return the probability of each row's answer, token by token up to its end, multiplied."""
        chosen, best = values.argmax(axis=1), values.max(axis=1)
        # True behind the first end token, which itself still counts. [N, L]
        after_end = np.cumsum(chosen == 0, axis=1) - (chosen == 0) > 0
        return np.asarray(np.where(after_end, 1.0, best).prod(axis=1))

    def table(self, spec: TaskSpec, values: Array, *, probabilities: bool = False) -> dict[str, Array]:
        """Return ``task``, the tokens with blanks between them, and ``task_probability`` of that sequence."""
        texts = [" ".join(self._read(spec, row)) for row in values.argmax(axis=1)]
        return {spec.name: np.array(texts, dtype=object), f"{spec.name}_probability": self._shares(values)}

    def answers(self, spec: TaskSpec, values: Array, *, probabilities: bool = False) -> list[dict[str, Any]]:
        """Return ``value``, the list of tokens, and ``probability`` of that sequence."""
        shares = self._shares(values).tolist()
        return [
            {"value": self._read(spec, row), "probability": share if np.isfinite(share) else None}
            for row, share in zip(values.argmax(axis=1), shares, strict=True)
        ]

    def describe(self, spec: TaskSpec, value: Array, *, is_prediction: bool) -> str:
        """Return the tokens with blanks between them."""
        row = value.argmax(axis=0) if is_prediction else value
        # A row of padding has no label; a row that ends at once has an empty answer.
        return " ".join(self._read(spec, row)) or ("" if (row < 0).all() else "(nothing)")

    def is_right(self, spec: TaskSpec, truth: Array, prediction: Array) -> bool | None:
        """Return whether all tokens are right; None without a label."""
        known = truth >= 0
        # What comes after the end is padding in the truth, and whatever is predicted there does not matter.
        return bool((prediction.argmax(axis=0) == truth)[known].all()) if known.any() else None


KIND = Sequence()
