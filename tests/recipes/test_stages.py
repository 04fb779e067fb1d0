"""A kind of stage is a class that makes itself known; what one may set is what PPMO takes."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from random_env import EPISODE, RandomEnv
from torch import nn

from gym_taskdistill import DistilledPolicy, zoo
from gym_taskdistill.cli.enjoy import EnjoyArgs, enjoy
from gym_taskdistill.distill.ppmo import PPMO
from gym_taskdistill.errors import TaskDistillError, ZooError
from gym_taskdistill.learners import ModuleFamily
from gym_taskdistill.recipes.file import check, load
from gym_taskdistill.recipes.run import Run
from gym_taskdistill.recipes.settings import schedule
from gym_taskdistill.recipes.stages import (
    STAGE_KINDS,
    DirectTask,
    Distil,
    Outcome,
    Promise,
    Stage,
    Work,
    read_stage,
    register_stage,
)
from gym_taskdistill.recipes.stages.stage import RecipeError
from gym_taskdistill.tasks import Task


def test_the_settings_of_ppmo_are_its_arguments_with_its_defaults() -> None:
    taken = inspect.signature(PPMO.__init__).parameters
    kwargs = Distil().arguments(PPMO, Task("CartPoleND-v0", {"n": 1}))
    made_by_the_stage = {"self", "env", "seed", "device", "verbose", "tensorboard_log", "stats_window_size"}
    assert set(kwargs) == set(taken) - made_by_the_stage - {"_init_setup_model"}
    for name, value in kwargs.items():
        default = taken[name].default
        if name in ("learning_rates", "inner", "start"):
            assert not Distil().model_fields_set  # empty ones mean PPMO's own
        elif name not in ("learners", "k", "n_learners", "batch_size"):  # PPMO's own follow the env, or none
            assert value == default, name


@pytest.fixture
def copy_kind() -> Iterator[str]:
    @register_stage("copy")
    class Copy(Stage):
        """Take another dataset as it is."""

        of: str

        def sources(self) -> tuple[str, ...]:
            return (self.of,)

        def check(self, task: Task, before: Promise | None) -> Promise:
            return Promise.of(zoo.load(self.of))

        def run(self, work: Work) -> Outcome:
            dataset = zoo.load(self.of)
            return Outcome(work.tested(dataset), inputs={"of": dataset})

    yield "copy"
    del STAGE_KINDS["copy"]


@pytest.mark.slow
def test_a_new_kind_of_stage_registers_itself(copy_kind: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "tasks: [CartPoleND-v0 n=2]\n"
        "evaluation: {n_agents: 2, n_episodes: 1, final_agents: 2, final_episodes: 1}\n"
        "variants: {mine: {stages: [copy: {of: 'CartPoleND-v0/n=2,k_min'}]}}\n"
    )
    recipe = load(str(tmp_path / "mine.yaml"))
    assert check(recipe).k == 3
    dataset = Run.create(recipe, 0, tmp_path).execute(progress_bar=False)
    assert dataset.digest == zoo.load("CartPoleND-v0", n=2).digest
    last = dataset.card.lineage[-1]
    assert (last.kind, last.inputs) == ("copy", {"of": dataset.digest})
    with pytest.raises(ValueError, match="exists already"):
        register_stage("copy")(Distil)


def test_stages_are_read_as_recipes_write_them() -> None:
    stage = read_stage({"ppmo": {"k": 3, "learning_rate": "lin_0.01_0.001"}}, "here")
    assert isinstance(stage, Distil)
    assert read_stage(stage.described(), "here") == stage
    with pytest.raises(RecipeError, match='here: there is no kind of stage "pmo".*Did you mean "ppmo"'):
        read_stage({"pmo": {}}, "here")
    with pytest.raises(RecipeError, match="here must be one kind of stage"):
        read_stage(3, "here")


def test_schedules() -> None:
    linear = schedule("lin_0.01_0.001")
    assert linear(1.0) == pytest.approx(0.01)
    assert linear(0.0) == pytest.approx(0.001)
    assert linear(0.5) == pytest.approx(0.0055)
    assert schedule(0.3) == 0.3


def ends_in_tanh(obs_space: gym.spaces.Box, n_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(obs_space.shape[0], n_outputs), nn.Tanh())


def test_settings_of_another_kind_replace_those_below(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(
        "tasks: [CartPoleND-v0 n=1]\n"
        "settings: {inner: {lr: 1, steps: 10}, learners: {family: mlp, width: 8}}\n"
        "variants: {a: {stages: [ppmo: {inner: {kind: ridge, regularization: 0.1}}]},\n"
        "  b: {stages: [ppmo: {inner: {kind: sgd, lr: 2}, learners: {family: mlp, depth: 1}}]},\n"
        "  c: {stages: [ppmo: {learners: {family: cnn, hidden: 9}}]}}\n"
    )
    stages = [load(f"{path}:{variant}").stages[0] for variant in "abc"]
    assert stages[0].inner == {"kind": "ridge", "regularization": 0.1}
    assert stages[1].inner == {"kind": "sgd", "lr": 2, "steps": 10}
    assert stages[1].learners == {"family": "mlp", "width": 8, "depth": 1}
    assert stages[2].learners == {"family": "cnn", "hidden": 9}
    changed = load(f"{path}:b", changes={"inner.kind": "ridge"}).stages[0]
    assert changed.inner == {"kind": "ridge"}


def test_a_stage_refuses_what_does_not_fit_the_task() -> None:
    with pytest.raises(TaskDistillError, match='"k_min" needs discrete actions'):
        Distil().check(Task("Pendulum-v1"), None)
    with pytest.raises(TaskDistillError, match="does not end in an nn.Linear"):
        factory = ModuleFamily(ends_in_tanh).spec()
        Distil(learners=factory, k=4, inner={"kind": "ridge"}).check(Task("Pendulum-v1"), None)
    with pytest.raises(RecipeError, match="leave encoder_layers out"):
        DirectTask(encoder_layers=2).check(Task("CartPoleND-v0", {"n": 1}), None)


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Record what an agent of the zoo does, as a dataset of Minari."""
    minari = pytest.importorskip("minari")
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    env = gym.make("CartPoleND-v0", n=1)
    policy = DistilledPolicy.from_zoo("CartPoleND-v0", n=1, seed=0)
    buffers = []
    for episode in range(3):
        obs, _ = env.reset(seed=episode)
        buffer = EpisodeBuffer(observations=[obs], actions=[], rewards=[], terminations=[], truncations=[])
        while not (buffer.terminations and (buffer.terminations[-1] or buffer.truncations[-1])):
            action = policy.predict(obs)[0]
            obs, reward, terminated, truncated, _ = env.step(int(action))
            buffer.observations.append(obs)
            for name, value in (
                ("actions", action),
                ("rewards", reward),
                ("terminations", terminated),
                ("truncations", truncated),
            ):
                getattr(buffer, name).append(value)
        buffers.append(buffer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what else may be told about a dataset
        minari.create_dataset_from_buffers("cartpole/test-v0", buffers, env=env)
    return "minari:cartpole/test-v0"


@pytest.mark.slow
def test_a_dataset_of_minari_is_imitated(recorded: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "tasks: [CartPoleND-v0 n=1]\n"
        "settings: {k: 4, learning_rate: 0.02, n_updates: 300}\n"
        "evaluation: {n_agents: 8, n_episodes: 2, final_agents: 8, final_episodes: 2}\n"
        f"variants: {{mine: {{stages: [imitate: {{expert: '{recorded}'}}]}}}}\n"
    )
    recipe = load(str(tmp_path / "mine.yaml"))
    check(recipe)
    dataset = Run.create(recipe, 0, tmp_path).execute(progress_bar=False)
    assert dataset.card.scores[0].mean > 200  # random rows: about 20
    assert dataset.card.num_timesteps == 0
    with pytest.raises(RecipeError, match='Minari has no dataset "no/such-v0"'):
        check(recipe.replace(stages=(recipe.stages[0].replace(expert="minari:no/such-v0"),)))
    with pytest.raises(RecipeError, match="has spaces"):
        check(recipe.replace(env_kwargs={"n": 2}))


QUICK = {"total_timesteps": 64, "n_envs": 4, "n_steps": 8, "batch_size": 16, "n_learners": 2, "k": 3}
TESTS = {f"evaluation.{name}": 1 for name in ("n_agents", "n_episodes", "final_agents", "final_episodes")}


def test_a_function_is_trained_by_as_an_id_is(tmp_path: Path) -> None:
    def make(render_mode: str | None = None) -> gym.Env:
        actions = spaces.MultiDiscrete([3, 2])
        return RandomEnv(spaces.Dict({"a": spaces.Discrete(3)}), actions, render_mode=render_mode)

    recipe = load(make, None, {**QUICK, **TESTS, "learners": "random_h"})
    assert recipe.env_id == "RandomEnv"
    folder = Run.create(recipe, 0, tmp_path).folder
    with pytest.raises(TaskDistillError, match=r"Run.open\(folder, env=make_env\)"):
        Run.open(folder).execute(progress_bar=False, device="cpu")
    dataset = Run.open(folder, env=make).execute(progress_bar=False, device="cpu")
    assert dataset.card.unrecorded and dataset.card.scores[0].mean == EPISODE
    with pytest.raises(ZooError, match="environment anyone can make"):
        zoo.add(dataset)
    enjoy(EnjoyArgs(str(folder), episodes=1, seed=0, record=tmp_path / "film.gif"), make)
    assert (tmp_path / "film.gif").is_file()


@pytest.mark.parametrize(
    ("obs", "action", "message"),
    [(spaces.Text(3), None, "space Text"), (None, spaces.Box(-np.inf, np.inf, (1,)), "have no bounds")],
)
def test_spaces_that_cannot_be_are_refused_before_there_is_a_folder(
    obs: Any, action: Any, message: str, tmp_path: Path
) -> None:
    recipe = load(lambda: RandomEnv(obs, action), None, {**QUICK, **TESTS})
    with pytest.raises(TaskDistillError, match=message):
        Run.create(recipe, 0, tmp_path)
    assert not list(tmp_path.iterdir())
