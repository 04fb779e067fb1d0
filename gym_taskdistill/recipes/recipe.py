"""Recipes: how a dataset is made from nothing, as plain data in ``agents/*.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, PrivateAttr, field_validator
from typing_extensions import Self

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.recipes.settings import EvaluationPlan
from gym_taskdistill.recipes.stages import Stage, read_stage
from gym_taskdistill.recipes.stages.stage import RecipeError
from gym_taskdistill.schema import Schema
from gym_taskdistill.tasks import EnvArg, Task, as_task
from gym_taskdistill.zoo import entry_name

#: How deep recipes may lie in one another.
MAX_DEPTH = 8


class Recipe(Schema):
    """One variant of one task: the stages that make its dataset from nothing.

    Attributes:
        env_id: Id of the environment.
        env_kwargs: Its arguments.
        variant: Name of the zoo entry that the recipe makes, such as ``"k_min"``.
        default: Whether that entry is the one `from_zoo` gives for the task.
        stages: What is done, in order; each starts from the dataset that the one before made.
        evaluation: How datasets are tested.
        needs: Recipes of the variants of the same file that stages name, so that a recipe is told whole.
    """

    error: ClassVar[type[TaskDistillError]] = RecipeError

    env_id: Annotated[str, Field(min_length=1, max_length=200)]
    env_kwargs: dict[str, Any] = Field(default_factory=dict)
    variant: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=80)] = "custom"
    default: bool = False
    stages: tuple[Any, ...]
    evaluation: EvaluationPlan = EvaluationPlan()
    needs: dict[str, Any] = Field(default_factory=dict)
    _task: Task | None = PrivateAttr(None)

    @field_validator("stages")
    @classmethod
    def _stages(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if not value or not all(isinstance(stage, Stage) for stage in value):
            raise ValueError("must be a list of at least one stage")
        return value

    @property
    def task(self) -> Task:
        """The task that the recipe distils."""
        return self._task or Task(self.env_id, self.env_kwargs)

    def replace(self, **changes: Any) -> Self:
        """Return a checked copy with some fields changed; the function that makes its env is kept."""
        recipe = super().replace(**changes)
        if not {"env_id", "env_kwargs"} & changes.keys():
            recipe._task = self._task
        return recipe

    def with_env(self, env: EnvArg) -> Recipe:
        """Return the recipe for an environment that a function makes, which no file can hold.

        Args:
            env: The function; see `as_task`.
        """
        task = as_task(env)
        recipe = self.replace(env_id=task.env_id, env_kwargs=dict(task.env_kwargs))
        recipe._task = task
        return recipe

    @property
    def entry(self) -> str:
        """Full name of the zoo entry that it makes, such as ``CartPoleND-v0/n=2,k_min``."""
        return f"{_bare(self.env_id)}/{entry_name(self.env_kwargs, self.variant, self.task.wrappers)}"

    @property
    def sources(self) -> tuple[str, ...]:
        """Variants and zoo entries that stages start from or imitate."""
        return tuple(dict.fromkeys(name for stage in self.stages for name in stage.sources()))

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain data, with every setting of every stage."""
        plain = super().to_dict()
        plain["stages"] = [stage.described() for stage in self.stages]
        plain["needs"] = {name: recipe.to_dict() for name, recipe in self.needs.items()}
        return {key: value for key, value in plain.items() if key != "needs" or value}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str = "recipe", depth: int = 0) -> Recipe:
        """Read what `to_dict` gives.

        Args:
            data: The recipe as plain data.
            source: Where it stands, for messages.
            depth: How many recipes it stands in.

        Raises:
            RecipeError: A setting is unknown, of the wrong type, or out of its range.
        """
        if not isinstance(data, Mapping):
            raise RecipeError(f"{source} must be a mapping with stages.")
        stages = data.get("stages")
        if not isinstance(stages, list | tuple):
            raise RecipeError(f"{source}: stages must be a list of stages.")
        read = [read_stage(stage, f"{source}: stages[{i}]") for i, stage in enumerate(stages)]
        needs = data.get("needs") or {}
        if not isinstance(needs, Mapping) or not all(isinstance(said, Mapping) for said in needs.values()):
            raise RecipeError(f"{source}: needs must be a mapping of recipes.")
        if needs and depth >= MAX_DEPTH:
            raise RecipeError(f"{source}: needs are nested more than {MAX_DEPTH} deep.")
        recipes = {
            name: cls.from_dict(said, f"{source}: needs.{name}", depth + 1) for name, said in needs.items()
        }
        return cls.read({**data, "stages": tuple(read), "needs": recipes}, source)


def _bare(env_id: str) -> str:
    """Return an env id without its module."""
    return env_id.rpartition(":")[2]
