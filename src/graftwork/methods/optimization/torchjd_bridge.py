"""Every aggregator of torchjd as a balancer, by the names that users of torchjd and LibMTL know.

torchjd (https://torchjd.org) computes the weights; gradients are computed and summed here (see
:mod:`graftwork.methods.optimization.jacobian`), which saves its second copy of the matrix. Three things differ from torchjd's own use:

- Inner products are divided by their trace before the methods whose answer does not depend on the gradients' scale see them. torchjd treats
  a squared norm below 1e-4 as zero, which is wrong for gradients of a representation: those are that small by nature.
- The quadratic programs of UPGrad and DualProj are solved by non-negative least squares (SciPy) in place of quadprog, on the same
  regularised problem.
- A task without labels in a batch is left out, except where a method remembers every task; NashMTL then keeps its last weights.
- NashMTL has a second solver, ``solver="newton"``, that finds the bargaining solution where torchjd's stops before it (see
  :mod:`graftwork.methods.optimization.nash`). The plan ``nashmtl`` uses it.
"""

from __future__ import annotations

import difflib
import inspect
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.core.optional import require
from graftwork.interfaces.balancer import Balancer
from graftwork.math.dual_cone import dual_cone_weights
from graftwork.methods.optimization.aggregator import Aggregator
from graftwork.methods.optimization.jacobian import JacobianBalancer, RepresentationBalancer
from graftwork.methods.optimization.nash import ExactNashMTL
from graftwork.methods.optimization.torchjd_weights import TorchJDFunction, TorchJDWeights

__all__ = ["AGGREGATORS", "find_aggregator", "jacobian_balancer"]

AGGREGATORS: dict[str, str] = {
    "AlignedMTL": "balances the principal components of the gradients (Senushkin et al., 2023)",
    "CAGrad": "best worst-case progress near the mean gradient (Liu et al., 2021)",
    "ConFIG": "equal cosine to all unit gradients (Liu et al., 2024)",
    "Constant": "fixed weights",
    "DualProj": "mean gradient projected onto the dual cone (Lopez-Paz and Ranzato, 2017)",
    "ExcessMTL": "weights by estimated excess risk, with memory (He et al., 2024)",
    "FairGrad": "alpha-fair progress (Ban and Ji, 2024)",
    "GradDrop": "keeps one sign per coordinate at random (Chen et al., 2020)",
    "GradVac": "pulls cosines up to their running mean, with memory (Wang et al., 2021)",
    "IMTLG": "equal projections onto all unit gradients (Liu et al., 2021)",
    "Krum": "picks the rows nearest to the others (Blanchard et al., 2017)",
    "MGDA": "shortest convex combination (Sener and Koltun, 2018)",
    "Mean": "mean of the gradients",
    "NashMTL": "Nash bargaining solution, with memory (Navon et al., 2022)",
    "PCD": "progress of the first task with a share for the others, with memory",
    "PCGrad": "projects conflicting gradients onto each other's normal planes in random order (Yu et al., 2020)",
    "Random": "random convex weights (Lin et al., 2022)",
    "Sum": "sum of the gradients",
    "TrimmedMean": "coordinate-wise mean without the extremes (Yin et al., 2018)",
    "UPGrad": "mean of the gradients, each projected onto the dual cone (Quinton and Rey, 2024)",
}
"""Names that :func:`jacobian_balancer` knows, with a few words each."""

ALIASES = {"imtl": "IMTLG", "moo": "MGDA", "rlw": "Random", "ew": "Sum", "equalweights": "Sum"}
SCALE_FREE = {"AlignedMTL", "CAGrad", "DualProj", "IMTLG", "Krum", "MGDA", "PCGrad", "UPGrad"}
NEEDS_ALL_TASKS = {"Constant", "ExcessMTL", "GradVac", "Krum", "NashMTL", "PCD"}
DEFAULTS: dict[str, dict[str, Any]] = {"CAGrad": {"c": 0.5}, "FairGrad": {"alpha": 2.0}, "NashMTL": {"n_tasks": 1}}


def find_aggregator(name: str) -> str:
    """Return torchjd's spelling of ``name``: case, ``_``, ``-`` and spaces do not matter.

    Raises:
        ConfigError: If there is no such aggregator; the message holds the nearest names.

    Example:
        >>> find_aggregator("Nash_MTL"), find_aggregator("aligned-mtl"), find_aggregator("IMTL")
        ('NashMTL', 'AlignedMTL', 'IMTLG')
    """
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    by_plain = {known.lower(): known for known in AGGREGATORS} | ALIASES
    if plain in by_plain:
        return by_plain[plain]
    near = [by_plain[word] for word in difflib.get_close_matches(plain, by_plain, n=2, cutoff=0.5)]
    hint = f" Did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
    raise ConfigError(f"There is no gradient aggregator {name!r}.{hint} Known: {', '.join(AGGREGATORS)}.")


def jacobian_balancer(
    aggregator: str = "UPGrad",
    mode: Literal["parameters", "representation"] = "parameters",
    *,
    factored: bool = True,
    **settings: Any,
) -> Balancer:
    """Return a balancer that uses one of torchjd's aggregators.

    Args:
        aggregator: A name of :data:`AGGREGATORS`, in torchjd's or LibMTL's spelling.
        mode: ``"parameters"`` for exact gradients of all shared parameters, ``"representation"`` for those of the shared representation, which
            hardly cost more than a plain step.
        factored: See :class:`~graftwork.methods.optimization.jacobian.JacobianBalancer`.
        settings: What the aggregator's constructor takes, with lists in place of tensors. Defaults where torchjd has none: CAGrad ``c=0.5``,
            FairGrad ``alpha=2.0``; NashMTL's ``n_tasks`` follows from the losses. UPGrad and DualProj take ``norm_eps`` and ``reg_eps``.
            NashMTL takes ``solver``, ``"torchjd"`` or ``"newton"``; the latter has the settings of
            :class:`~graftwork.methods.optimization.nash.ExactNashMTL`.

    Raises:
        ConfigError: If the name, the mode or a setting is wrong.
        MissingDependencyError: If torchjd is not installed.
    """
    name = find_aggregator(aggregator)
    if mode not in ("parameters", "representation"):
        raise ConfigError(f"`mode` must be 'parameters' or 'representation'; got {mode!r}.")
    wrapped = _build(name, settings)
    return JacobianBalancer(wrapped, factored=factored) if mode == "parameters" else RepresentationBalancer(wrapped)


def _build(name: str, settings: dict[str, Any]) -> Aggregator:
    if name == "NashMTL" and settings.get("solver", "torchjd") != "torchjd":
        return _build_exact_nash(settings)
    settings = {key: value for key, value in settings.items() if name != "NashMTL" or key != "solver"}
    torchjd = require("torchjd.aggregation", extra="balancing", purpose=f"The aggregator {name}")
    chosen = {**DEFAULTS.get(name, {}), **settings}
    if name in ("UPGrad", "DualProj"):
        chosen["projector"] = least_squares_projector(chosen.pop("norm_eps", 1e-4), chosen.pop("reg_eps", 1e-4))
    built = getattr(torchjd, name)
    allowed = [parameter for parameter in inspect.signature(built).parameters if parameter not in ("projector", "f")]
    unknown = sorted(set(chosen) - set(allowed) - {"projector"})
    if unknown:
        raise ConfigError(f"{name} has no setting {unknown[0]!r}; its settings are {', '.join(allowed) or 'none'}.")
    tensors = {
        key: torch.tensor(value, dtype=torch.float32) if isinstance(value, (list, tuple)) else value
        for key, value in chosen.items()
    }
    try:
        aggregator = built(**tensors)
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"{name} cannot be built with {settings or 'no settings'}: {error}") from error
    skips_absent = name not in NEEDS_ALL_TASKS and "pref_vector" not in settings
    if isinstance(aggregator, torchjd.GramianWeightedAggregator):
        return TorchJDWeights(aggregator, "gramian", scale_free=name in SCALE_FREE, skips_absent=skips_absent)
    if name == "NashMTL":
        return TorchJDWeights(aggregator, "root", skips_absent=False, keeps_weights=True)
    if isinstance(aggregator, torchjd.WeightedAggregator):
        return TorchJDWeights(aggregator, "matrix" if name == "ExcessMTL" else "gramian", skips_absent=skips_absent)
    return TorchJDFunction(aggregator)


def _build_exact_nash(settings: dict[str, Any]) -> Aggregator:
    if settings["solver"] != "newton":
        raise ConfigError(f"`solver` of NashMTL must be 'torchjd' or 'newton'; got {settings['solver']!r}.")
    chosen = {key: value for key, value in settings.items() if key != "solver"}
    allowed = list(inspect.signature(ExactNashMTL).parameters)
    unknown = sorted(set(chosen) - set(allowed))
    if unknown:
        raise ConfigError(
            f"NashMTL with the solver 'newton' has no setting {unknown[0]!r}; its settings are {', '.join(allowed)}."
        )
    return ExactNashMTL(**chosen)


def least_squares_projector(norm_eps: float, reg_eps: float) -> Any:
    """Return a ``torchjd.linalg.DualConeProjector`` that needs SciPy only.

    Args:
        norm_eps: Traces below this count as zero, as in torchjd's own projector; irrelevant for inner products divided by their trace.
        reg_eps: Added to the diagonal of the normalised inner products; 0 gives the exact projection.
    """
    linalg = require("torchjd.linalg", extra="balancing", purpose="UPGrad")

    class LeastSquaresProjector(linalg.DualConeProjector):  # type: ignore[misc, name-defined]
        def __call__(self, U: Tensor, G: Tensor) -> Tensor:
            gram = G.detach().cpu().double().numpy()
            trace = float(np.trace(gram))
            gram = gram / trace if trace >= norm_eps else np.zeros_like(gram)
            weights = dual_cone_weights(gram + reg_eps * np.eye(len(gram)), U.detach().cpu().double().numpy())
            return torch.as_tensor(weights).to(device=G.device, dtype=G.dtype)

        def __repr__(self) -> str:
            return f"LeastSquaresProjector(norm_eps={norm_eps}, reg_eps={reg_eps})"

    return LeastSquaresProjector()
