"""Changes of a recipe's settings, as a command line names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gym_taskdistill.errors import did_you_mean
from gym_taskdistill.recipes.settings import EvaluationPlan
from gym_taskdistill.recipes.stages import STAGE_KINDS, Stage
from gym_taskdistill.recipes.stages.outer import merged
from gym_taskdistill.recipes.stages.stage import RecipeError


class Changes:
    """Settings that a command line changes, sorted by where they belong.

    Args:
        changes: Settings by name: ``k`` changes all stages that have it, ``2.n_steps`` the second stage,
            ``inner.steps`` a part of a setting, ``n_agents`` or ``evaluation.n_agents`` how datasets are
            tested.

    Raises:
        RecipeError: There is no such setting.
    """

    def __init__(self, changes: Mapping[str, Any]) -> None:
        self.shared: dict[str, Any] = {}
        self.evaluation: dict[str, Any] = {}
        self.stages: dict[int, dict[str, Any]] = {}
        known = {name for kind in STAGE_KINDS.values() for name in kind.model_fields}
        for key, value in changes.items():
            first, *rest = key.split(".")
            if first.isdecimal() and rest:
                _nest(self.stages.setdefault(int(first), {}), rest, value)
            elif first == "evaluation" and rest:
                _nest(self.evaluation, rest, value)
            elif first in EvaluationPlan.model_fields:
                _nest(self.evaluation, [first, *rest], value)
            elif first in known:
                _nest(self.shared, [first, *rest], value)
            else:
                names = sorted({*known, *EvaluationPlan.model_fields})
                raise RecipeError(
                    f'--set {key}: there is no setting "{first}".{did_you_mean(first, names)} A stage\'s own '
                    "setting is written with its number, such as 2.total_timesteps=100_000."
                )

    def of_stage(self, number: int, kind: str) -> dict[str, Any]:
        """Return what changes in one stage: its own changes, on top of those that all stages share."""
        fields = STAGE_KINDS[kind].model_fields
        shared = {key: value for key, value in self.shared.items() if key in fields}
        return merged(shared, self.stages.get(number, {}))

    def check(self, stages: Sequence[Stage]) -> None:
        """Refuse changes of stages that there are not, and settings that no stage has.

        Raises:
            RecipeError: It names the change.
        """
        for number in self.stages:
            if not 1 <= number <= len(stages):
                raise RecipeError(f"--set {number}.…: the recipe has stages 1 to {len(stages)}.")
        for key in self.shared:
            if not any(key in type(stage).model_fields for stage in stages):
                kinds = ", ".join(dict.fromkeys(stage.kind for stage in stages))
                raise RecipeError(f"--set {key}: none of the stages ({kinds}) has this setting.")


def _nest(target: dict[str, Any], names: Sequence[str], value: Any) -> None:
    """Set ``target[a][b] = value`` for the names ``[a, b]``."""
    *outer, last = names
    for name in outer:
        inner = target.setdefault(name, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {'.'.join(names)}: {name} is set as a whole already.")
        target = inner
    target[last] = value
