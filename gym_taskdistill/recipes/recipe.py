"""Recipes: how to distil a task, as plain data in ``agents/*.yaml``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from stable_baselines3.common.utils import LinearSchedule

from gym_taskdistill.distill.lookahead import SETTINGS
from gym_taskdistill.distill.ppmo import PPMO
from gym_taskdistill.errors import TaskDistillError, did_you_mean
from gym_taskdistill.paths import data_root
from gym_taskdistill.tasks.task import Task

#: What a recipe may say under ``ppmo:``, that is PPMO's own arguments.
HYPERPARAMETERS = [
    name
    for name in inspect.signature(PPMO.__init__).parameters
    if name not in ("self", "env", "seed", "device", "verbose", "tensorboard_log", "_init_setup_model")
]


class RecipeError(TaskDistillError, ValueError):
    """Raised when a recipe does not exist or says something that cannot be done."""


@dataclass(frozen=True)
class EvaluationPlan:
    """How a run is scored.

    Attributes:
        eval_freq: Env steps between two evaluations that choose the best dataset; 0 for 20 in a run.
        n_agents: Fresh learners in each of those.
        n_episodes: Episodes for each.
        final_agents: Fresh learners in the final score, on other seeds.
        final_episodes: Episodes for each.
        final_learners: Learner distributions of the final score, a row for each; empty for the recipe's own.
    """

    eval_freq: int = 0
    n_agents: int = 32
    n_episodes: int = 8
    final_agents: int = 100
    final_episodes: int = 100
    final_learners: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImitationPlan:
    """The supervised warm start of a run; see `gym_taskdistill.imitation`.

    Attributes:
        expert: Whom to imitate: a dataset file, a zoo entry, or an SB3 model as ``ppo:model.zip``, or
            one action, always, as ``action:11``.
        n_envs: Envs that are recorded side by side.
        n_steps: Env steps of a recording.
        n_rounds: Number of recordings; the expert plays in the first, the learners in the later ones.
        n_updates: Updates after each recording, on all recordings so far. The schedules of PPMO's learning
            rates run once over all rounds, and again over PPMO.
        batch_size: Observations in an update.
        beta: Fraction of the learners' actions in which the expert stands in for them, in the second
            round; its square in the third, and so on (DAgger; Ross et al. 2011).
        noise: Fraction of random actions in the recordings.
        draw_every: Updates for which learners are kept before others are drawn.
        temperature: Divides the expert's logits or means: below 1 learners become surer than it is.
        hard_fraction: Fraction of a batch that is drawn where most was missed; see `imitate`.
        lookahead: Arguments of the `Lookahead` that the expert becomes, such as ``{steps: 120}``; ``None`` if
            it acts as it is.
    """

    expert: str
    n_envs: int = 16
    n_steps: int = 50_000
    n_rounds: int = 1
    n_updates: int = 2_000
    batch_size: int = 256
    beta: float = 0.0
    noise: float = 0.1
    draw_every: int = 1
    temperature: float = 1.0
    hard_fraction: float = 0.0
    lookahead: dict[str, Any] | None = None


@dataclass(frozen=True)
class Recipe:
    """All settings of a distillation.

    Attributes:
        env_id: Id of the environment.
        env_kwargs: Its arguments.
        variant: Name of the zoo entry that the recipe makes, such as ``"k_min"``.
        default: Whether that entry is the one `from_zoo` gives for the task.
        n_envs: Columns of envs, M·E.
        backend: What computes them in training: ``"auto"``, ``"gymnasium"`` or ``"envpool"``; see
            `Task.make_vec_env`. Part of a run's result.
        total_timesteps: Env steps of the whole run.
        normalize: Normalise observations and rewards with SB3's `VecNormalize`.
        clip_reward: Train on the signs of an Atari game's rewards; other tasks have theirs as they are.
        ppmo: PPMO's arguments under their own names; a schedule is written ``lin_0.01`` (from 0.01 linearly
            to 0) or ``lin_0.01_0.001``.
        evaluation: How the run is scored.
        imitation: The supervised start before PPMO, if any.
    """

    env_id: str
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    variant: str = "custom"
    default: bool = False
    n_envs: int = 32
    backend: str = "auto"
    total_timesteps: int = 1_000_000
    normalize: bool = False
    clip_reward: bool = True
    ppmo: dict[str, Any] = field(default_factory=dict)
    evaluation: EvaluationPlan = field(default_factory=EvaluationPlan)
    imitation: ImitationPlan | None = None

    @property
    def task(self) -> Task:
        """The task that the recipe distils."""
        return Task(self.env_id, self.env_kwargs)

    def ppmo_kwargs(self) -> dict[str, Any]:
        """Return PPMO's arguments with schedules built."""
        return {name: _value(value) for name, value in self.ppmo.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain data, as `from_dict` reads it."""
        plain = asdict(self)
        plain["evaluation"]["final_learners"] = list(self.evaluation.final_learners)
        if self.imitation is None:
            del plain["imitation"]
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str = "recipe") -> Recipe:
        """Check plain data and make a recipe of it.

        Args:
            data: What a YAML file says.
            source: Where it stands, for messages.

        Raises:
            RecipeError: A setting is unknown or of the wrong type.
        """
        known = {f.name: f for f in fields(cls)}
        _refuse_unknown(data, known, source)
        if not isinstance(data.get("env_id"), str):
            raise RecipeError(f"{source}: env_id must name an environment.")
        settings = dict(data)
        if settings.get("imitation") is None:
            settings.pop("imitation", None)
        for name in ("env_kwargs", "ppmo", "evaluation", "imitation"):
            if not isinstance(settings.get(name, {}), dict):
                raise RecipeError(f"{source}: {name} must be a mapping, but is {settings[name]!r}.")
        for name in ("n_envs", "total_timesteps"):
            value = settings.get(name, 1)
            # YAML reads 1e6 as text and 1.0e6 as a float; both are meant as a count.
            try:
                settings[name] = int(float(value)) if name in settings else known[name].default
            except (TypeError, ValueError):
                raise RecipeError(f"{source}: {name} must be a number, but is {value!r}.") from None
            if settings[name] < 1:
                raise RecipeError(f"{source}: {name} must be at least 1, but is {value!r}.")
        _refuse_unknown(settings.get("ppmo", {}), HYPERPARAMETERS, f"{source}, ppmo")
        plan = dict(settings.get("evaluation", {}))
        _refuse_unknown(plan, [f.name for f in fields(EvaluationPlan)], f"{source}, evaluation")
        plan["final_learners"] = tuple(plan.get("final_learners", ()))
        settings["evaluation"] = EvaluationPlan(**plan)
        if "imitation" in settings:
            imitation = settings["imitation"]
            _refuse_unknown(imitation, [f.name for f in fields(ImitationPlan)], f"{source}, imitation")
            if not isinstance(imitation.get("expert"), str):
                raise RecipeError(f"{source}, imitation: expert must name a dataset, a zoo entry or a model.")
            for name in ("n_envs", "n_steps", "n_rounds", "n_updates", "batch_size"):
                value = imitation.get(name, 1)
                if not isinstance(value, int) or value < 1:
                    raise RecipeError(f"{source}, imitation: {name} must be an integer >= 1, not {value!r}.")
            lookahead = imitation.get("lookahead")
            if not isinstance(lookahead, dict | None):
                raise RecipeError(f"{source}, imitation: lookahead must be a mapping, but is {lookahead!r}.")
            _refuse_unknown(lookahead or {}, SETTINGS, f"{source}, imitation, lookahead")
            settings["imitation"] = ImitationPlan(**imitation)
        return cls(**settings)

    def override(self, changes: Mapping[str, Any]) -> Recipe:
        """Return the recipe with some settings changed.

        Args:
            changes: Settings by name: the recipe's own, PPMO's, the evaluation plan's, or with their section
                before them, as in ``imitation.n_updates``; ``imitation=None`` leaves it out.

        Raises:
            RecipeError: There is no such setting.
        """
        plain = self.to_dict()
        known = {
            "imitation": [f.name for f in fields(ImitationPlan)],
            "evaluation": list(plain["evaluation"]),
            "ppmo": HYPERPARAMETERS,
            "": [name for name in (*plain, "imitation") if name not in ("ppmo", "evaluation")],
        }
        places = {f"{section}.{name}": (section, name) for section in known for name in known[section]}
        for section in ("evaluation", "ppmo", ""):  # those that need no section before them
            places |= {name: (section, name) for name in known[section]}
        _refuse_unknown(changes, places, "overrides")
        for place, value in changes.items():
            section, name = places[place]
            (plain.setdefault(section, {}) if section else plain)[name] = value
        return self.from_dict(plain, "overrides")


def _refuse_unknown(data: Mapping[str, Any], known: Any, source: str) -> None:
    for name in data:
        if name not in known:
            raise RecipeError(
                f'{source}: there is no setting "{name}"; known are {", ".join(known)}.'
                f"{did_you_mean(str(name), known)}"
            )


def _value(value: Any) -> Any:
    """Turn ``lin_a`` and ``lin_a_b`` into schedules and numbers written as text into numbers."""
    if not isinstance(value, str):
        return value
    if value.startswith("lin_"):
        try:
            start, *rest = (float(part) for part in value.removeprefix("lin_").split("_"))
            (end,) = rest or (0.0,)
        except ValueError:
            raise RecipeError(
                f'"{value}" is not a schedule; write lin_START or lin_START_END, such as lin_0.01.'
            ) from None
        return LinearSchedule(start, end, 1.0)
    try:
        return float(value)  # YAML reads 1e-3 as text
    except ValueError:
        return value


def names() -> list[str]:
    """List the recipes."""
    return sorted(path.stem for path in data_root("agents").glob("*.yaml"))


def load(name: str, env_kwargs: Mapping[str, Any] | None = None, env_id: str | None = None) -> Recipe:
    """Read a recipe of ``agents/``, or a recipe file.

    A recipe may serve a family of tasks: its entries under ``family`` change settings where their ``when``
    agrees with the env's arguments, or with its id (``env_id``); a list there means any of its values.

    Args:
        name: The name of a recipe, the path of a YAML file, or an env id; an env id finds the recipe whose
            task it is, or the recipe ``default`` if it has none.
        env_kwargs: Arguments of the env, in place of the recipe's.
        env_id: Id of the env, in place of the recipe's.

    Returns:
        The recipe for these arguments.

    Raises:
        RecipeError: There is no such recipe or env, or the file is wrong.
    """
    path, named_env = _find(name)
    data = _read(path)
    if env_id is not None or named_env is not None:
        data["env_id"] = env_id or named_env
    data["env_kwargs"] = {**data.get("env_kwargs", {}), **(env_kwargs or {})}
    family = data.pop("family", [])
    for case in family:
        if not isinstance(case, dict) or not isinstance(case.get("when"), dict):
            raise RecipeError(f"{path.name}: every entry under family needs a mapping when:.")
        if _agrees(case.pop("when"), {"env_id": _bare(data.get("env_id", "")), **data["env_kwargs"]}):
            for setting, value in case.items():
                both = isinstance(value, dict) and isinstance(data.get(setting), dict)
                data[setting] = {**data[setting], **value} if both else value
    return Recipe.from_dict(data, path.name)


def _find(name: str) -> tuple[Path, str | None]:
    """Return the file of a recipe, and the env id to put into it where ``name`` was one."""
    root = data_root("agents")
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise RecipeError(f'There is no recipe file "{name}".')
        return path, None
    if name in names():
        return root / f"{name}.yaml", None
    recipes = sorted(root.glob("*.yaml"), key=lambda p: p.stem)
    found = [p for p in recipes if _bare(name) in _env_ids(_read(p))]
    if found:
        default = [p for p in found if _read(p).get("default")]
        return (default or found)[0], name
    try:
        Task(name).spec  # noqa: B018  (raises if there is no such env)
    except TaskDistillError:
        raise RecipeError(
            f'There is no recipe and no env "{name}"; recipes are {", ".join(names())}.'
            f"{did_you_mean(name, names())}"
        ) from None
    return root / "default.yaml", name


def _bare(env_id: str) -> str:
    """Return an env id without its module."""
    return env_id.rpartition(":")[2]


def _agrees(conditions: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    return all(
        facts.get(name) in (wanted if isinstance(wanted, list) else [wanted])
        for name, wanted in conditions.items()
    )


def _env_ids(data: Mapping[str, Any]) -> set[str]:
    """List the envs that a recipe names."""
    ids = [data.get("env_id")]
    for case in data.get("family", []):
        wanted = case.get("when", {}).get("env_id", [])
        ids += wanted if isinstance(wanted, list) else [wanted]
    return {env_id for env_id in ids if isinstance(env_id, str)}


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f'The recipe "{path.name}" cannot be read: {error}') from None
    if not isinstance(data, dict):
        raise RecipeError(f'The recipe "{path.name}" must be a mapping of settings.')
    return data
