"""Time until an event that some rows have not seen yet (censored). Loss: the likelihood of discrete-time hazards.

Time is cut into intervals, and a logit per interval is the hazard: the probability of the event in it, for rows that reach it.
(Gensheimer and Narasimhan, "A scalable discrete-time survival model for neural networks", PeerJ 2019.) Cox's partial likelihood
compares each event with all rows at risk, of which a mini-batch holds a few, so its gradient is not that of the whole
likelihood, and it gives no times without
a baseline fitted afterwards. Hazards factorise over rows: mini-batches are unbiased, batches without an event still teach,
missing labels are masked like others, hazards need not be proportional, and a row's survival curve comes straight out of the
network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graftwork.core.plain_numbers import plain_number
from graftwork.core.records import TaskSpec
from graftwork.data.reading.table import Table
from graftwork.data.reading.target_cells import InferredTask, TargetRequest
from graftwork.data.reading.time_and_event import survival_target
from graftwork.interfaces.metric import Array, Floats
from graftwork.interfaces.task_kind import ColumnCount, LabelColumn, TaskKind
from graftwork.tasks.answers import listed
from graftwork.tasks.metrics import survival

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

__all__ = ["KIND", "NUM_INTERVALS", "Survival", "risk_and_events"]

NUM_INTERVALS = 20
"""Most intervals that training rows are cut into; fewer if there are fewer different event times."""


class Survival(TaskKind):
    """Targets ``[N, 2]`` float32, time (at least 0) and event (1, or 0 if censored), NaN where missing.

    ``size`` is the number K of intervals; ``details["edges"]`` holds their ends in the user's units, increasing, the first
    interval begins at
    0. K logits of hazards; answers are the probability of surviving each edge, ``[N, K]``, falling along a row.
    """

    name = "survival"
    words = "time until an event"
    metrics = (survival.CONCORDANCE, survival.INTEGRATED_BRIER)
    reads_columns: ClassVar[ColumnCount] = "several"
    answer_fields: ClassVar = {
        "median": {
            "type": ["number", "null"],
            "description": "Time at which survival falls to one half; null if later than the horizon.",
        },
        "horizon": {"type": "number", "description": "Time up to which the mean time in value is taken."},
    }

    def problems(self, spec: TaskSpec) -> Sequence[str]:
        """Return a problem if the edges do not increase or are not ``size``."""
        edges = spec.details.get("edges")
        # Before training there are no edges; they come with the training rows.
        if edges is None:
            return ()
        if len(edges) == spec.size and np.isfinite(edges).all() and min(edges) > 0 and (np.diff(edges) > 0).all():
            return ()
        return (f"details['edges'] must hold {spec.size} increasing numbers above 0, the ends of the intervals; got {edges}.",)

    def fit_spec(self, spec: TaskSpec, target: Array) -> TaskSpec:
        """Return the task with edges at times by which equal shares of the training rows' events have happened (Kaplan-Meier)."""
        if spec.details.get("edges"):
            return spec
        known = ~np.isnan(target).any(axis=1)
        time, event = np.asarray(target[known, 0], dtype=np.float64), target[known, 1] == 1
        # An event at time 0 would make an edge at 0, an interval without length.
        positive = event & (time > 0)
        if not positive.any():
            # No event: one interval up to the last time seen, so that the head has an output at all.
            edges = np.array([max(float(time.max(initial=0.0)), 1.0)])
        else:
            times, free = survival.event_free(time, positive)
            # From 1 down to where the curve ends; the start itself is no edge.
            wanted = np.linspace(1.0, free[-1], NUM_INTERVALS + 1)[1:]
            # The curve falls and searchsorted wants it rising, hence the signs. 1e-12 forgives the rounding of the product.
            edges = np.unique(times[np.minimum(np.searchsorted(-free, -wanted - 1e-12), len(times) - 1)])
        return replace(spec, size=len(edges), details={**spec.details, "edges": edges.tolist()})

    def answer_shape(self, spec: TaskSpec, target_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return ``[N, K]``."""
        return (target_shape[0], spec.size)

    # --- learning ---

    def loss(self, spec: TaskSpec, output: Tensor, target: Tensor, *, robust: bool = False) -> Tensor:
        """Return the negative log-likelihood per interval at risk: binary cross-entropy of the hazards."""
        from torch.nn import functional as F

        from graftwork.tasks.tensors import masked_mean

        at_risk, here = risk_and_events(spec, target)
        return masked_mean(F.binary_cross_entropy_with_logits(output, here.to(output.dtype), reduction="none"), at_risk)

    def label_count(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the number of intervals at risk of all rows."""
        return risk_and_events(spec, target)[0].sum()

    def prior_loss(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the loss of one survival curve for all rows, the Kaplan-Meier curve at the edges."""
        from graftwork.tasks.tensors import entropy

        at_risk, here = risk_and_events(spec, target)
        count = at_risk.double().sum(dim=0)
        share = here.double().sum(dim=0) / count.clamp(min=1)
        return ((entropy(share) + entropy(1.0 - share)) * count).sum() / count.sum()

    def decode(self, spec: TaskSpec, output: Tensor) -> Tensor:
        """Return the probability of surviving each edge."""
        from torch.nn import functional as F

        # log(1 - sigmoid(x)) = -softplus(x): the sum of logarithms does not underflow as a product would.
        return (-F.softplus(output)).cumsum(dim=1).exp()

    def divergence(self, spec: TaskSpec, reference: Tensor, output: Tensor) -> Tensor:
        """Return the divergence between the Bernoulli distributions of the hazards."""
        from graftwork.tasks.tensors import bernoulli_divergence

        return bernoulli_divergence(reference, output)

    # --- data ---

    def read_columns(self, request: TargetRequest, frame: pd.DataFrame | Table) -> InferredTask:
        """Return the task of a time column and an event column, in this order.

        Raises:
            DataError: If there are not two columns, a time is negative or no number, or the event is not yes or no.
        """
        target, reason = survival_target(request, frame)
        spec = TaskSpec(name=request.name, kind=self.name, size=NUM_INTERVALS, columns=request.columns, metric=request.metric)
        return InferredTask(spec, reason, target)

    def strata(self, spec: TaskSpec, target: Array) -> list[LabelColumn]:
        """Return event or censored, and the time."""
        known = ~np.isnan(target).any(axis=1)
        # -1 is "no class" to the splitter; NaN cannot become an integer.
        event = np.where(known, target[:, 1], -1).astype(np.int64)
        return [LabelColumn("classes", event), LabelColumn("number", np.where(known, target[:, 0], np.nan))]

    # --- people ---

    def _median(self, spec: TaskSpec, values: Array) -> Floats:
        """Return the time at which survival falls to one half, linear between edges; NaN if it does not before the last edge."""
        # Survival is 1 at time 0, which no output says. curve: [N, K + 1]
        edges = np.concatenate([[0.0], survival.edges_of(spec)])
        curve = np.concatenate([np.ones((len(values), 1)), np.asarray(values, dtype=np.float64)], axis=1)
        # argmax of booleans: the first edge at or below one half, and 0 if there is none, which the last line makes NaN.
        after = (curve[:, 1:] <= 0.5).argmax(axis=1)
        high, low = (np.take_along_axis(curve, (after + shift)[:, None], 1)[:, 0] for shift in (0, 1))
        # A flat piece has no slope to divide by.
        share = (high - 0.5) / np.where(high > low, high - low, 1.0)
        found = edges[after] + np.clip(share, 0.0, 1.0) * (edges[after + 1] - edges[after])
        return np.where((curve[:, 1:] <= 0.5).any(axis=1), found, np.nan)

    def _edge_names(self, spec: TaskSpec) -> list[str]:
        # As float32, the type that the times were read in: 0.1, not 0.10000000149011612.
        return [np.format_float_positional(np.float32(edge), trim="-") for edge in survival.edges_of(spec)]

    def table(self, spec: TaskSpec, values: Array, *, probabilities: bool = False) -> dict[str, Array]:
        """Return ``task``, the mean time up to the last edge, ``task_median`` (empty if survival stays above one half until
        then), and ``task[time]``, the probability of surviving each edge, if asked."""
        columns: dict[str, Array] = {
            spec.name: survival.mean_time(spec, values).astype(np.float32),
            f"{spec.name}_median": self._median(spec, values).astype(np.float32),
        }
        if probabilities:
            columns |= {f"{spec.name}[{name}]": values[:, index] for index, name in enumerate(self._edge_names(spec))}
        return columns

    def answers(self, spec: TaskSpec, values: Array, *, probabilities: bool = False) -> list[dict[str, Any]]:
        """Return ``value`` (mean time up to ``horizon``, the last edge), ``median`` (null if survival stays above one half until
        then), and ``probabilities`` of surviving each edge if asked."""
        horizon = float(survival.edges_of(spec)[-1])
        columns = self.table(spec, values)
        pairs = zip(listed(columns[spec.name]), listed(columns[f"{spec.name}_median"]), strict=True)
        found: list[dict[str, Any]] = [{"value": mean, "median": median, "horizon": horizon} for mean, median in pairs]
        if probabilities:
            names = self._edge_names(spec)
            for one, row in zip(found, values, strict=True):
                one["probabilities"] = dict(zip(names, listed(row), strict=True))
        return found

    def describe(self, spec: TaskSpec, value: Array, *, is_prediction: bool) -> str:
        """Return the time: of the event, at least (censored), or the predicted mean up to the last edge."""
        if is_prediction:
            return plain_number(float(survival.mean_time(spec, value[None])[0]))
        if np.isnan(value).any():
            return ""
        return plain_number(float(value[0])) if value[1] == 1 else f"more than {plain_number(float(value[0]))}"


def risk_and_events(spec: TaskSpec, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return which intervals each row was at risk in, and in which the event came, bool ``[B, K]`` each.

    A row is at risk until its event's interval; a censored one in the intervals whose end it has survived. What comes after the
    last edge is not looked at.

    Args:
        spec: A survival task.
        target: Time and event, ``[B, 2]``.
    """
    ends = survival.edges_of(spec).tolist()
    # Minus infinity: an event at time 0 belongs to the first interval.
    edges, begin = target.new_tensor(ends), target.new_tensor([-float("inf"), *ends[:-1]])
    time, event = target[:, :1], target[:, 1:] == 1
    # The interval begins after `begin` and holds its end: (begin, edge].
    reached = event & (time > begin)
    return reached | (~event & (time >= edges)), reached & (time <= edges)


KIND = Survival()
