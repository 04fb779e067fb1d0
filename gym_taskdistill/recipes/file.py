"""Recipe files: variants of a family of tasks, and how a name finds one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gym_taskdistill import trust
from gym_taskdistill.dataset.card import bare_id
from gym_taskdistill.errors import TaskDistillError, did_you_mean
from gym_taskdistill.paths import data_root
from gym_taskdistill.recipes.changes import Changes
from gym_taskdistill.recipes.facts import agrees, check_conditions
from gym_taskdistill.recipes.recipe import Recipe
from gym_taskdistill.recipes.stages import STAGE_KINDS, Promise, read_stage
from gym_taskdistill.recipes.stages.outer import merged
from gym_taskdistill.recipes.stages.stage import RecipeError
from gym_taskdistill.schema import read_yaml
from gym_taskdistill.tasks import EnvArg, Task, as_task

#: The recipe of a task that none names.
DEFAULT = "default"

#: What a recipe file may say, and what one of its variants and of its cases may.
_FILE_KEYS = ("tasks", "settings", "evaluation", "variants", "cases")
_VARIANT_KEYS = ("default", "settings", "evaluation", "stages")
_CASE_KEYS = ("when", "settings", "evaluation", "variants")


@dataclass(frozen=True)
class RecipeFile:
    """A recipe file: variants of a family of tasks.

    Attributes:
        path: The file.
        data: What it says.
    """

    path: Path
    data: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> RecipeFile:
        """Read a file, and check the names of all that stands in it.

        Raises:
            RecipeError: The file is missing, no YAML, too large, or has unknown keys.
        """
        name = path.name
        try:
            data = read_yaml(path, name)
        except TaskDistillError as error:
            raise RecipeError(str(error)) from None
        _check_keys(data, _FILE_KEYS, name)
        tasks = [
            _read_task(task, f"{name}: tasks[{i}]") for i, task in enumerate(_listed(data, "tasks", name))
        ]
        arguments = sorted({argument for task in tasks for argument in task.env_kwargs})
        blocks: list[tuple[str, Mapping[str, Any]]] = [("", data)]
        for i, case in enumerate(_listed(data, "cases", name)):
            where = f"cases[{i}]."
            if not isinstance(case, Mapping) or not isinstance(case.get("when"), Mapping):
                raise RecipeError(f"{name}: {where[:-1]} must be a mapping with a mapping when: in it.")
            _check_keys(case, _CASE_KEYS, f"{name}, {where[:-1]}")
            check_conditions(case["when"], arguments, f"{name}: {where}when")
            blocks.append((where, case))
        for where, block in blocks:
            _check_settings(block, f"{name}: {where}")
            for variant, says in _mapping(block, "variants", f"{name}: {where}").items():
                if says is None and where:
                    continue
                inner = f"{where}variants.{variant}"
                if not isinstance(says, Mapping):
                    raise RecipeError(f"{name}: {inner} must be a mapping with stages.")
                _check_keys(says, _VARIANT_KEYS, f"{name}, {inner}")
                _check_settings(says, f"{name}: {inner}.")
        return cls(path, data)

    @property
    def tasks(self) -> list[Task]:
        """The tasks that it names; its first is meant when none is asked for."""
        return [_read_task(task, self.path.name) for task in self.data.get("tasks") or ()]

    def variants(self, task: Task) -> dict[str, Mapping[str, Any]]:
        """Return what it says of each variant that it has for a task."""
        says = _mapping(self._for(task), "variants", self.path.name)
        return {name: variant for name, variant in says.items() if variant is not None}

    def recipe(
        self,
        task: Task,
        variant: str | None = None,
        changes: Mapping[str, Any] | None = None,
        within: tuple[str, ...] = (),
    ) -> Recipe:
        """Return one variant for one task.

        Args:
            task: The task.
            variant: Name of the variant; ``None`` for the default one.
            changes: Settings to change; see `load`.
            within: Variants that need this one.

        Raises:
            RecipeError: There is no such variant, or a setting is wrong.
        """
        name, data, variants = self.path.name, self._for(task), self.variants(task)
        if not variants:
            raise RecipeError(f"{name} has no variant for {task}; it has {_names(self.tasks)}.")
        if variant is None:
            variant = next((v for v, says in variants.items() if says.get("default")), next(iter(variants)))
        if variant not in variants:
            raise RecipeError(
                f'{name} has no variant "{variant}" for {task}; it has {_names(variants)}.'
                f"{did_you_mean(variant, variants)}"
            )
        says, changed = variants[variant], Changes(changes or {})
        where = f"{name}: variants.{variant}"
        shared = merged(merged(data.get("settings") or {}, says.get("settings") or {}), changed.shared)
        stages = []
        for i, stage in enumerate(_listed(says, "stages", where)):
            place = f"{where}.stages[{i}]"
            kind, own = _one_kind(stage, place)
            settings = {key: value for key, value in shared.items() if key in STAGE_KINDS[kind].model_fields}
            settings = merged(merged(settings, own), changed.of_stage(i + 1, kind))
            stages.append(read_stage({kind: settings}, place))
        if not stages:
            raise RecipeError(f"{where} must have a list stages: with at least one stage.")
        changed.check(stages)
        plan = merged(data.get("evaluation") or {}, says.get("evaluation") or {})
        plain = {
            "env_id": task.env_id,
            "env_kwargs": dict(task.env_kwargs),
            "variant": variant,
            "default": says.get("default", False),
            "evaluation": merged(plan, changed.evaluation),
        }
        recipe = Recipe.read({**plain, "stages": tuple(stages)}, where)
        needed = [source for source in recipe.sources if "/" not in source]
        if variant in within and needed:
            raise RecipeError(f"{where}: {variant} cannot come from itself.")
        needs = {source: self.recipe(task, source, within=(*within, variant)) for source in needed}
        return recipe.replace(needs=needs)

    def _for(self, task: Task) -> Mapping[str, Any]:
        """Return what the file says once the cases of a task have changed it."""
        data: Mapping[str, Any] = self.data
        for case in data.get("cases") or ():
            if agrees(case["when"], task):
                data = merged(data, {key: value for key, value in case.items() if key != "when"})
        return data


def files() -> list[RecipeFile]:
    """Read all recipe files that come with the library, the one for unknown tasks last."""
    paths = sorted(data_root("agents").glob("*.yaml"), key=lambda path: (path.stem == DEFAULT, path.stem))
    return [RecipeFile.read(path) for path in paths]


def recipes() -> Iterator[Recipe]:
    """List every variant of every task that the library's recipe files name."""
    for file in files():
        for task in file.tasks:
            for variant in file.variants(task):
                yield file.recipe(task, variant)


def load(
    name: EnvArg,
    env_kwargs: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Recipe:
    """Find the recipe of a task, an entry, or a file.

    Args:
        name: An env id (``"Hopper-v4"``), with a variant (``"Hopper-v4/ten-steps"``) or the full name of an
            entry (``"CartPoleND-v0/n=2,k_min"``); a recipe's name (``"cartpole"``); or a YAML file, with a
            variant behind a colon if not its first is meant (``"my.yaml:wide"``). A task that no recipe names
            gets the recipe ``default``, and so does a function that makes an environment.
        env_kwargs: Arguments of the env.
        changes: Settings to change by name: a plain name changes all stages that have it, ``2.n_steps`` the
            second stage, ``inner.steps`` a part of a setting, ``evaluation.n_agents`` how datasets are
            tested.

    Returns:
        The recipe; call its `check` before it is carried out.

    Raises:
        RecipeError: There is no such recipe, task or variant, or a setting is wrong.
    """
    given = dict(env_kwargs or {})
    if not isinstance(name, str):
        task = as_task(name)
        if task.factory is not None or task.wrappers:
            return files()[-1].recipe(task, None, changes).with_env(task)
        name, given = task.env_id, {**task.env_kwargs, **given}
    file, task, variant = _find(name, given)
    return file.recipe(task, variant, changes)


def check(recipe: Recipe, start: Promise | None = None) -> Promise:
    """Refuse a chain of stages that cannot be carried out, before anything is begun.

    Args:
        recipe: The chain.
        start: What is known of the dataset that the first stage starts from, if there is one.

    Returns:
        What is known of the dataset that the recipe makes.

    Raises:
        TaskDistillError: The task does not exist, or a stage fits neither it nor the stage before.
    """
    return _checked(recipe, start, (recipe.entry,))


def _checked(recipe: Recipe, start: Promise | None, within: tuple[str, ...]) -> Promise:
    promise = start
    for i, stage in enumerate(recipe.stages):
        try:
            sources = [load_source(name, recipe) for name in stage.sources()]
            for source in sources:
                if source.entry in within:
                    raise RecipeError(f"{source.entry} cannot come from itself.")
            promises = [_checked(source, None, (*within, source.entry)) for source in sources]
            # What adapt changes is its source; an expert only says what to do.
            before = promises[0] if promises and stage.starts_from_source else promise
            promise = stage.check(recipe.task, before)
        except TaskDistillError as error:
            raise RecipeError(f"{recipe.entry}, stage {i + 1} ({stage.kind}): {error}") from None
    assert promise is not None
    return promise


def load_source(name: str, recipe: Recipe) -> Recipe:
    """Find the recipe of a variant or an entry that another recipe's stage names.

    Args:
        name: A variant of the same task, in the recipe's own file or the library's, or the name of an entry.
        recipe: The recipe whose stage names it.

    Raises:
        RecipeError: There is neither.
    """
    if name in recipe.needs:
        needed: Recipe = recipe.needs[name]
        return needed
    if "/" in name:
        return load(name)
    file, task, _ = _find(recipe.env_id, recipe.env_kwargs)
    return file.recipe(task, name)


def _find(name: str, env_kwargs: dict[str, Any]) -> tuple[RecipeFile, Task, str | None]:
    """Return the file, the task and the variant that a name means."""
    path, _, variant = name.rpartition(":") if ".yaml:" in name or ".yml:" in name else (name, "", "")
    if path.endswith((".yaml", ".yml")):
        file = RecipeFile.read(Path(path))
        if not file.tasks:
            raise RecipeError(
                f"{file.path.name} must name a task under tasks:, such as tasks: [CartPole-v1]."
            )
        first = file.tasks[0]
        return file, Task(first.env_id, {**first.env_kwargs, **env_kwargs}), variant or None
    known = files()
    for file in known:
        if name == file.path.stem and file.tasks:
            return file, Task(file.tasks[0].env_id, {**file.tasks[0].env_kwargs, **env_kwargs}), None
    for env_id, kwargs, part in _readings(name):
        for file in known:
            ours = [one for one in file.tasks if bare_id(one.env_id) == bare_id(env_id)]
            if ours:
                given = {**kwargs, **env_kwargs} or dict(ours[0].env_kwargs)
                return file, Task(env_id, given), part
    task, variant_or_none = _unknown_task(name, env_kwargs, known)
    return known[-1], task, variant_or_none


def _unknown_task(
    name: str, env_kwargs: dict[str, Any], known: Sequence[RecipeFile]
) -> tuple[Task, str | None]:
    """Return a task that no recipe names, if there is such an env."""
    if ":" in name:
        trust.check(name.partition(":")[0], f'The env "{name}"')
    for env_id, kwargs, variant in _readings(name):
        task = Task(env_id, {**kwargs, **env_kwargs})
        try:
            task.spec  # noqa: B018  (raises if there is no such env)
        except TaskDistillError:
            continue
        return task, variant
    names = [file.path.stem for file in known]
    tasks = sorted({task.env_id for file in known for task in file.tasks})
    raise RecipeError(
        f'There is no recipe and no env "{name[:80]}"; recipes are {", ".join(names)}.'
        f"{did_you_mean(name, [*names, *tasks])} taskdistill recipes lists what they make."
    )


def _readings(name: str) -> Iterator[tuple[str, dict[str, Any], str | None]]:
    """Yield what a name may mean: an env id, or one with ``key=value,…,variant`` behind a slash."""
    yield name, {}, None
    env_id, slash, rest = name.rpartition("/")
    if slash:
        *pairs, last = rest.split(",")
        kwargs = {key: _value(value) for key, _, value in (pair.partition("=") for pair in pairs)}
        if "=" in last:
            key, _, value = last.partition("=")
            yield env_id, {**kwargs, key: _value(value)}, None
        else:
            yield env_id, kwargs, last


def _value(text: str) -> Any:
    """Read an argument as it stands in the name of a task: an integer, a truth value, or text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def _read_task(data: Any, source: str) -> Task:
    """Read a task as it is written: ``CartPoleND-v0 n=2``."""
    if not isinstance(data, str) or not data.strip():
        raise RecipeError(f"{source} must be a task such as CartPoleND-v0 n=2, but is {str(data)[:80]!r}.")
    env_id, *pairs = data.split()
    if not all("=" in pair for pair in pairs):
        raise RecipeError(f"{source} must be a task such as CartPoleND-v0 n=2, but is {data[:80]!r}.")
    return Task(env_id, {key: _value(value) for key, _, value in (pair.partition("=") for pair in pairs)})


def _one_kind(stage: Any, place: str) -> tuple[str, Mapping[str, Any]]:
    """Return a stage's kind and settings, once both are known to be a name and a mapping."""
    if isinstance(stage, str):
        stage = {stage: {}}
    if not isinstance(stage, Mapping) or len(stage) != 1:
        raise RecipeError(f"{place} must be one kind of stage with its settings, such as ppmo: {{k: 64}}.")
    ((kind, settings),) = stage.items()
    if kind not in STAGE_KINDS or not isinstance(settings, Mapping | None):
        read_stage({kind: settings if isinstance(settings, Mapping | None) else {"": settings}}, place)
        raise RecipeError(f"{place}.{kind} must be a mapping of settings.")
    return kind, settings or {}


def _check_settings(block: Mapping[str, Any], where: str) -> None:
    """Refuse settings that no kind of stage has."""
    known = {name for kind in STAGE_KINDS.values() for name in kind.model_fields}
    for name in _mapping(block, "settings", where):
        if name not in known:
            raise RecipeError(
                f'{where}settings: no stage has a setting "{str(name)[:80]}".{did_you_mean(str(name), known)}'
            )
    _mapping(block, "evaluation", where)


def _check_keys(data: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in data:
        if key not in known:
            raise RecipeError(
                f'{where}: there is no key "{str(key)[:80]}"; known are {", ".join(known)}.'
                f"{did_you_mean(str(key), known)}"
            )


def _mapping(data: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = data.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RecipeError(f"{where.rstrip('.: ')}: {key} must be a mapping, but is {str(value)[:80]!r}.")
    return value


def _listed(data: Mapping[str, Any], key: str, where: str) -> Sequence[Any]:
    value = data.get(key)
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise RecipeError(f"{where}: {key} must be a list, but is {str(value)[:80]!r}.")
    return value


def _names(things: Any) -> str:
    return ", ".join(dict.fromkeys(str(thing) for thing in things)) or "none"
