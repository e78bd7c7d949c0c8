"""Running statistics of BatchNorm after a merge: measured anew on rows.

Paper: Jordan et al., "REPAIR: REnormalizing Permuted Activations for Interpolation Repair", ICLR 2023,
https://arxiv.org/abs/2211.08403. For networks with BatchNorm its correction is to reset the running statistics, which is done here;
networks without BatchNorm, whose activations it rescales, are not changed.

The variance of a sum of units that do not agree is smaller than theirs, and the mean of their running variances is therefore wrong for
the merged network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

__all__ = ["estimate_statistics"]

Rows = TypeVar("Rows")


def estimate_statistics(network: nn.Module, batches: Iterable[Rows], run: Callable[[Rows], Any]) -> dict[str, NDArray[Any]]:
    """Return running means and variances by name, each the mean over all batches; the network keeps its own,
    and each module its mode.

    Args:
        network: Everything but BatchNorm is run as in evaluation.
        batches: Rows; two or more a batch.
        run: Calls the network with a batch.

    Returns:
        ``{"norm.running_mean": ..., "norm.running_var": ...}``; empty if there is no BatchNorm with statistics, or no batch.
    """
    import torch
    from torch import nn

    from graftwork.nn.modes import evaluating

    norms = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats and module.running_mean is not None
    }
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    momenta = {name: module.momentum for name, module in norms.items()}
    seen = 0
    with evaluating(network):
        try:
            for module in norms.values():
                module.reset_running_stats()
                # None: the plain mean of all batches in place of a moving one.
                module.momentum = None
                # Not `train()`, which norms of a frozen part do not hear.
                module.training = True
            if norms:
                with torch.no_grad():
                    for batch in batches:
                        run(batch)
                        seen += 1
            state = network.state_dict()
            prefixes = [f"{name}." if name else "" for name in norms]
            found = {f"{prefix}{part}": state[f"{prefix}{part}"].cpu().numpy().copy() for prefix in prefixes for part in _PARTS}
        finally:
            for name, module in norms.items():
                module.momentum = momenta[name]
            network.load_state_dict(kept)
    return found if seen else {}


_PARTS = ("running_mean", "running_var")
