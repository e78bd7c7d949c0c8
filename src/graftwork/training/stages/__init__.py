"""How the stages of a plan are carried out, one module a kind, named like the kind in :mod:`graftwork.core.stages`.

Each module has a function ``build(stage, context, earlier)`` that returns a :class:`~graftwork.interfaces.learner.Learner`:
one for all stages up to this one. ``earlier(context)`` builds the learner of the stages before, for this context or one derived
from it (other tasks, fewer steps), as often as the stage needs it; it is None for the first stage. So a stage decides itself who
trains how long, what predicts while its turn has not come, and what a checkpoint holds. A base for stages with steps of their own
is :class:`~graftwork.training.staged.StagedLearner`. Nothing here imports torch before a stage that needs it is built.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

from graftwork.core.errors import ConfigError
from graftwork.core.stage import Stage
from graftwork.interfaces.learner import Learner, LearnerContext

__all__ = ["Earlier", "learner_of"]

Earlier = Callable[[LearnerContext], Learner]
"""Builds the learner of all stages before one."""


def learner_of(context: LearnerContext) -> Learner:
    """Build the learner of all stages of a plan.

    Raises:
        ConfigError: If a stage cannot stand where it stands, or nothing says how its kind is carried out.
    """
    return _learner(context.plan.stages, context)


def _learner(stages: Sequence[Stage], context: LearnerContext) -> Learner:
    *before, stage = stages
    if stage.follows is not bool(before):
        where = "must be the first" if before else "works on what other stages made; it cannot be the first"
        raise ConfigError(f"Plan {context.plan.name!r}: a stage of kind {stage.kind!r} {where}.")
    name = f"{__name__}.{stage.kind}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A missing package inside the module is another error, with its own name.
        if error.name != name:
            raise
        raise ConfigError(f"Stages of kind {stage.kind!r} cannot be carried out: there is no module {name}.") from error
    learner: Learner = module.build(stage, context, (lambda other: _learner(before, other)) if before else None)
    return learner
