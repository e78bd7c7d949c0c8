"""How far two predictions of the same rows are apart: the Kullback-Leibler divergence of what raw outputs stand for, for every task kind.

Reduced as the task's loss is (see :mod:`graftwork.tasks.losses`), so that divergences of different tasks have comparable sizes:

=======================================  ==============================================================================
multiclass, dense_multiclass             between categorical distributions, mean over rows and pixels
binary, multilabel, ordinal,             between Bernoulli distributions, mean over rows, logits and pixels
dense_binary
regression, dense_regression, others     between normal distributions of variance 1 around the standardised values: half the
                                         squared difference, mean over everything
dense_normals                            one minus the cosine: directions have no density here
=======================================  ==============================================================================
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from graftwork.core.records import TaskSpec

__all__ = ["output_divergence"]

_CATEGORICAL = ("multiclass", "dense_multiclass")
_BERNOULLI = ("binary", "multilabel", "ordinal", "dense_binary")


def output_divergence(spec: TaskSpec, reference: Tensor, output: Tensor) -> Tensor:
    """Return the divergence ``KL(reference || output)``, a scalar of at least 0 (up to rounding); labels are not needed.

    Args:
        spec: The task.
        reference: Raw outputs, ``[B, num_outputs]`` or ``[B, num_outputs, H, W]``; the first argument of the divergence.
        output: Raw outputs of the same shape.
    """
    if spec.kind in _CATEGORICAL:
        wanted, found = F.log_softmax(reference, dim=1), F.log_softmax(output, dim=1)
        return (wanted.exp() * (wanted - found)).sum(dim=1).mean()
    if spec.kind in _BERNOULLI:
        share = reference.sigmoid()
        yes = F.logsigmoid(reference) - F.logsigmoid(output)
        no = F.logsigmoid(-reference) - F.logsigmoid(-output)
        return (share * yes + (1.0 - share) * no).mean()
    if spec.kind == "dense_normals":
        return (1.0 - F.cosine_similarity(reference, output, dim=1, eps=1e-6)).mean()
    return 0.5 * (reference - output).square().mean()
