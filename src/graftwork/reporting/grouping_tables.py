"""The part of a report on how tasks act on one another: affinities, gradients by stage, and which tasks to train together."""

from __future__ import annotations

from graftwork.reporting.figures.gradients import gradient_figure, gradient_time_figure
from graftwork.reporting.figures.heatmaps import affinity_figure
from graftwork.reporting.formatting import is_number, number
from graftwork.reporting.page import Section
from graftwork.reporting.parts import Cell, Table
from graftwork.reporting.result_view import ResultView

__all__ = ["affinity_section", "grouping_table", "layers_table"]


def grouping_table(view: ResultView) -> Table | None:
    """Return the groups with the steadiness of each task's place, or None if the control with shuffled companions bears none out."""
    found = view.section("grouping")
    groups = [list(group) for group in found.get("groups") or ()]
    # A table of groups that shuffled companions do not bear out would read like advice.
    if not groups or found.get("advised") == []:
        return None
    # By task: groups list the tasks in another order.
    shares = dict(zip(found.get("tasks") or (), found.get("confidence") or ()))

    def sure(task: str) -> str:
        # Rounded down, and never 100 %: the share is one of resamples, not a proof.
        return f"{int(100 * min(shares[task], 0.99) + 1e-9)}\u00a0%" if is_number(shares.get(task)) else "n/a"

    value, together = found.get("value"), found.get("together")
    # Without a control the groups are what was measured, and no advice.
    what = "Groups to train together" if found.get("advised") else "Groups by the affinities alone, which no control bears out"
    how = "the best of all partitions" if found.get("is_exact") else "found step by step, perhaps not the best"
    return Table(
        caption=(
            f"{what}, at most {found.get('max_groups')}, {how}: value {number(value)}, against "
            f"{number(together)} for all tasks in one group and 0 for separate models. Steadiness: how often no other place "
            "of the task is better within the measurements' noise; it says nothing about other trainings."
        ),
        headers=["Group", Cell("Tasks", numeric=False), Cell("Steadiness", numeric=False)],
        rows=[
            [
                str(index + 1),
                Cell(", ".join(map(str, group)), numeric=False),
                Cell(", ".join(f"{task} {sure(task)}" for task in group), numeric=False),
            ]
            for index, group in enumerate(groups)
        ],
    )


def layers_table(view: ResultView) -> Table | None:
    """Return the share of conflicts in every layer, or None if none were sampled."""
    layers = list(view.section("gradients").get("layers") or ())
    if not layers:
        return None
    return Table(
        caption="Share of samples and pairs whose gradients conflict, layer by layer",
        headers=["Layer", Cell("Stage", numeric=False), "In conflict"],
        rows=[
            [
                str(row.get("layer")),
                Cell(str(row.get("stage")), numeric=False),
                Cell(f"{100 * row['conflict_share']:.0f}\u00a0%" if is_number(row.get("conflict_share")) else "n/a"),
            ]
            for row in layers
        ],
    )


def affinity_section(view: ResultView) -> Section:
    """Return the section; empty if nothing was measured."""
    method, sampled = view.section("affinity").get("method"), view.section("gradients").get("method")
    advice = view.section("grouping").get("advice") or ()
    return Section(
        "affinity",
        "Which tasks help each other",
        "Affinity",
        "Does it help the column's task to have the row's task trained along? Only of cells with a filled ground anything is "
        "claimed: they stand out among all pairs, and training with shuffled companions bears them out."
        + (f" Measured by: {method}." if method else "")
        + (f" Below: {sampled}." if sampled else ""),
        (affinity_figure(view), grouping_table(view), gradient_figure(view), gradient_time_figure(view)),
        notes=tuple(str(sentence) for sentence in advice),
        folded=(layers_table(view),),
    )
