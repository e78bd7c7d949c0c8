"""Every aggregator of torchjd as a balancer, by the names that users of torchjd and LibMTL know.

torchjd (https://torchjd.org) computes the weights of most; gradients are computed and summed here (see
:mod:`graftwork.methods.optimization.jacobian`), which saves its second copy of the matrix. What differs from torchjd's own use:

- Inner products are computed and taken apart in float64, whatever the gradients are in.
- Inner products are divided by their trace before the methods whose answer does not depend on the gradients' scale see them, and
  constants that
  torchjd adds to squared lengths are left out or made small: CAGrad ``norm_eps=1e-8``, GradVac ``eps=1e-14``, PCD ``eps=0``.
  torchjd treats a squared norm below 1e-4 as zero, which is wrong for gradients of a representation, which are that small by
  nature, and for a task that is nearly learned.
- AlignedMTL, IMTLG, ConFIG, FairGrad and NashMTL are solved here (:mod:`graftwork.methods.optimization.exact_weights`,
  ``nash``): the same methods, right for gradients of any size. ``solver="torchjd"`` gives torchjd's own FairGrad and NashMTL,
  which follow the published codes and stop before the solution where gradients are short or of very different length.
- CAGrad goes on where a task's gradient is zero; torchjd stands still. All directions that the paper's problem then allows are
  equally good for that task, and the one that is best for the others is taken.
- The quadratic programs of UPGrad and DualProj are solved by non-negative least squares (SciPy) in place of quadprog, on the same
  regularised problem. ``reg_eps=0`` gives the exact projection.
- A task without labels in a batch is left out, except where a method remembers every task; torchjd's NashMTL then keeps its last
  weights.
- Gradients that are not finite give a direction of NaN, which the training loop reports with the task that it came from.

Where the published forms differ: CAGrad is not rescaled afterwards (the official code's mode 0), MGDA is the paper's Frank-Wolfe
method with torchjd's 100 steps, PCGrad and Sum add up where LibMTL's do likewise, AlignedMTL, UPGrad and DualProj average.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from graftwork.core.components import component_of
from graftwork.core.errors import ConfigError
from graftwork.core.optional import require
from graftwork.interfaces.balancer import Balancer
from graftwork.math.dual_cone import dual_cone_weights
from graftwork.methods.optimization.aggregator import Aggregator
from graftwork.methods.optimization.exact_weights import IMTLG, AlignedMTL, ConFIG, FairGrad
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

# LibMTL's and the papers' names.
ALIASES = {"imtl": "IMTLG", "moo": "MGDA", "rlw": "Random", "ew": "Sum", "equalweights": "Sum"}
# Their weights do not depend on the gradients' scale, so inner products may be divided by their trace.
SCALE_FREE = {"CAGrad", "DualProj", "GradVac", "Krum", "MGDA", "PCGrad", "UPGrad"}
# They remember something for each task, have settings by position, or choose among all rows.
NEEDS_ALL_TASKS = {"Constant", "ExcessMTL", "GradVac", "Krum", "NashMTL", "PCD"}
DEFAULTS: dict[str, dict[str, Any]] = {
    "CAGrad": {"c": 0.5, "norm_eps": 1e-8},
    "FairGrad": {"alpha": 2.0},
    "GradVac": {"eps": 1e-14},
    "NashMTL": {"n_tasks": 1},
    "PCD": {"eps": 0.0},
}
SOLVED_HERE: dict[str, Callable[..., Aggregator]] = {
    "AlignedMTL": AlignedMTL,
    "ConFIG": ConFIG,
    "FairGrad": FairGrad,
    "IMTLG": IMTLG,
    "NashMTL": ExactNashMTL,
}
TWO_SOLVERS = ("FairGrad", "NashMTL")
LEAST_LENGTH = {"CAGrad": 1e-7}
"""Rows below this share of the longest count as zero; of CAGrad, above what its ``norm_eps`` takes for zero."""


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


@component_of(Balancer)
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
        mode: ``"parameters"`` for exact gradients of all shared parameters, ``"representation"`` for those of the shared
            representation, which hardly cost more than a plain step.
        factored: See :class:`~graftwork.methods.optimization.jacobian.JacobianBalancer`.
        settings: What the aggregator's constructor takes, with lists in place of tensors. Defaults where torchjd has none:
            CAGrad ``c=0.5``, FairGrad ``alpha=2.0``; NashMTL's ``n_tasks`` follows from the losses and need not be given. UPGrad
            and DualProj take ``norm_eps`` and ``reg_eps``. FairGrad and NashMTL take ``solver``: ``"newton"``, the default, with
                the settings of
            :class:`~graftwork.methods.optimization.exact_weights.FairGrad` and
            :class:`~graftwork.methods.optimization.nash.ExactNashMTL`, or ``"torchjd"`` with torchjd's.

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
    settings = dict(settings)
    solver = settings.pop("solver", "newton") if name in TWO_SOLVERS else "newton"
    if solver not in ("newton", "torchjd"):
        raise ConfigError(f"`solver` of {name} must be 'newton' or 'torchjd'; got {solver!r}.")
    if name in SOLVED_HERE and solver == "newton":
        if name == "NashMTL":
            settings.pop("n_tasks", None)  # torchjd's users have to give it
        built = SOLVED_HERE[name]
        _check_names(name, built, settings)
        try:
            return built(**settings)
        except TypeError as error:
            raise ConfigError(f"{name} cannot be built with {settings}: {error}") from error
    torchjd = require("torchjd.aggregation", extra="balancing", purpose=f"The aggregator {name}")
    if name == "NashMTL":  # its solver is not among what torchjd installs, and is GPL
        for package in ("cvxpy", "ecos"):
            require(package, extra="nash", purpose='torchjd\'s solver of Nash-MTL (solver = "torchjd")')
    chosen = {**DEFAULTS.get(name, {}), **settings}
    if name in ("UPGrad", "DualProj"):
        chosen["projector"] = least_squares_projector(chosen.pop("norm_eps", 1e-4), chosen.pop("reg_eps", 1e-4))
    _check_names(name, getattr(torchjd, name), {key: value for key, value in chosen.items() if key != "projector"})
    # Plans are JSON and hold lists, where torchjd wants tensors.
    tensors = {
        key: torch.tensor(value, dtype=torch.float32) if isinstance(value, (list, tuple)) else value
        for key, value in chosen.items()
    }
    try:
        aggregator = getattr(torchjd, name)(**tensors)
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"{name} cannot be built with {settings or 'no settings'}: {error}") from error
    # Preferences belong to tasks by position: a row that is left out would shift them.
    skips_absent = name not in NEEDS_ALL_TASKS and "pref_vector" not in settings
    if isinstance(aggregator, torchjd.GramianWeightedAggregator):
        return TorchJDWeights(
            aggregator,
            "gramian",
            scale_free=name in SCALE_FREE,
            skips_absent=skips_absent,
            least_length=LEAST_LENGTH.get(name, 0.0),
        )
    if name == "NashMTL":
        # Nash-MTL's weighting takes a matrix and looks at its inner products alone; the root has the same ones.
        return TorchJDWeights(aggregator, "root", skips_absent=False, keeps_weights=True)
    if isinstance(aggregator, torchjd.WeightedAggregator):
        return TorchJDWeights(aggregator, "matrix" if name == "ExcessMTL" else "gramian", skips_absent=skips_absent)
    return TorchJDFunction(aggregator)


def _check_names(name: str, built: Callable[..., Any], settings: dict[str, Any]) -> None:
    allowed = [parameter for parameter in inspect.signature(built).parameters if parameter not in ("projector", "f")]
    unknown = sorted(set(settings) - set(allowed))
    if unknown:
        hint = ""
        if name in TWO_SOLVERS:
            hint = ", and `solver`: 'newton' or 'torchjd', whose other settings differ"
        raise ConfigError(f"{name} has no setting {unknown[0]!r}; its settings are {', '.join(allowed) or 'none'}{hint}.")


def least_squares_projector(norm_eps: float, reg_eps: float) -> Any:
    """Return a ``torchjd.linalg.DualConeProjector`` that needs SciPy only.

    Args:
        norm_eps: Traces below this count as zero, as in torchjd's own projector; irrelevant for inner products divided by their
            trace.
        reg_eps: Added to the diagonal of the normalised inner products; 0 gives the exact projection.
    """
    linalg = require("torchjd.linalg", extra="balancing", purpose="UPGrad")

    class LeastSquaresProjector(linalg.DualConeProjector):  # type: ignore[misc, name-defined]
        def __call__(self, U: Tensor, G: Tensor) -> Tensor:
            gram = G.detach().cpu().double().numpy()
            trace = float(np.trace(gram))
            # The regularisation is relative to the trace, as in torchjd.
            gram = gram / trace if trace >= norm_eps else np.zeros_like(gram)
            weights = dual_cone_weights(gram + reg_eps * np.eye(len(gram)), U.detach().cpu().double().numpy())
            return torch.as_tensor(weights).to(device=G.device, dtype=G.dtype)

        def __repr__(self) -> str:
            return f"LeastSquaresProjector(norm_eps={norm_eps}, reg_eps={reg_eps})"

    return LeastSquaresProjector()
