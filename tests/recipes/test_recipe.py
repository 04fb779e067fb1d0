"""Recipes are checked data: every shipped one builds, and every mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from stable_baselines3.common.utils import LinearSchedule

from gym_taskdistill.distill.ppmo import PPMO
from gym_taskdistill.recipes import recipe as recipes
from gym_taskdistill.recipes.recipe import ImitationPlan, Recipe, RecipeError


@pytest.mark.parametrize("name", recipes.names())
def test_every_shipped_recipe_makes_a_trainer(name: str) -> None:
    recipe = recipes.load(name)
    env = recipe.task.make_vec_env(recipe.n_envs)
    model = PPMO(env=env, seed=0, device="cpu", **recipe.ppmo_kwargs())
    assert model.dataset().k == model.n_rows
    env.close()


def test_family_settings_follow_the_env_arguments() -> None:
    one, two, five = (recipes.load("cartpole", {"n": n}) for n in (1, 2, 5))
    assert two.total_timesteps < five.total_timesteps
    assert (one.ppmo["n_learners"], two.ppmo["n_learners"]) == (16, 4)
    assert one.ppmo["learning_rate"] == two.ppmo["learning_rate"]  # a section is merged, not replaced
    assert recipes.load("cartpole", {"n": 5}).env_kwargs == {"n": 5}


def test_an_env_id_finds_its_recipe_or_the_default() -> None:
    assert recipes.load("CartPoleND-v0").variant == "k_min"
    acrobot = recipes.load("Acrobot-v1")
    assert acrobot.env_id == "Acrobot-v1"
    assert acrobot.ppmo == recipes.load("default").ppmo


def test_an_atari_game_is_played_by_its_pixels_unless_asked_otherwise() -> None:
    assert recipes.load("PongNoFrameskip-v4").variant == "level-4"
    assert recipes.load("atari-ram").task.observation_space.shape == (128,)


def test_a_recipe_survives_plain_data() -> None:
    recipe = recipes.load("cartpole-universal-few", {"n": 3})
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_overrides_reach_every_section() -> None:
    recipe = recipes.load("cartpole").override({"k": 7, "n_envs": 8, "final_agents": 3, "gamma": 0.9})
    assert (recipe.ppmo["k"], recipe.n_envs, recipe.evaluation.final_agents) == (7, 8, 3)
    assert recipe.ppmo["gamma"] == 0.9
    both = recipe.override({"imitation.expert": "mine", "imitation.n_envs": 3, "ppmo.batch_size": 64})
    assert both.imitation == ImitationPlan("mine", n_envs=3)
    assert (both.n_envs, both.ppmo["batch_size"]) == (8, 64)
    assert Recipe.from_dict(both.to_dict()) == both
    assert both.override({"imitation": None}).imitation is None


def test_schedules_and_numbers_are_read() -> None:
    kwargs = (
        recipes.load("cartpole").override({"learning_rate": "lin_0.01_0.001", "gamma": "9e-1"}).ppmo_kwargs()
    )
    schedule = kwargs["learning_rate"]
    assert isinstance(schedule, LinearSchedule)
    assert schedule(1.0) == pytest.approx(0.01)
    assert schedule(0.0) == pytest.approx(0.001)
    assert schedule(0.5) == pytest.approx(0.0055)
    assert kwargs["gamma"] == 0.9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("env_id: CartPoleND-v0\nimitation: {expert: a, lookahead: 40}", "lookahead must be a mapping"),
        ("env_id: CartPoleND-v0\nimitation: {expert: a, lookahead: {step: 4}}", 'no setting "step"'),
        ("env_id: CartPoleND-v0\nn_env: 3", 'no setting "n_env".*Did you mean "n_envs"'),
        ("env_id: CartPoleND-v0\nppmo: {gama: 0.9}", 'no setting "gama".*Did you mean "gamma"'),
        ("env_id: CartPoleND-v0\nppmo: 3", "ppmo must be a mapping"),
        ("env_id: CartPoleND-v0\nn_envs: many", "n_envs must be a number"),
        ("env_id: CartPoleND-v0\nn_envs: 0", "n_envs must be at least 1"),
        ("env_id: CartPoleND-v0\nfamily: [{n: 1}]", "needs a mapping when"),
        ("n_envs: 3", "env_id must name"),
        ("env_id: CartPoleND-v0\nimitation: {n_steps: 3}", "imitation: expert must name"),
        ("env_id: CartPoleND-v0\nimitation: {expert: a, n_step: 3}", 'Did you mean "n_steps"'),
        ("- 1", "must be a mapping of settings"),
        ("a: [", "cannot be read"),
        ("!!python/object/apply:os.system ['true']", "cannot be read"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        recipes.load(str(path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cartpol", 'Did you mean "cartpole"'),
        ("nowhere.yaml", "no recipe file"),
        ("Nothing-v7", "no recipe and no env"),
    ],
)
def test_an_unknown_recipe_is_named(name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipes.load(name)


def test_a_wrong_schedule_is_named() -> None:
    recipe = recipes.load("cartpole").override({"learning_rate": "lin_fast"})
    with pytest.raises(RecipeError, match="lin_fast"):
        recipe.ppmo_kwargs()


def test_a_family_may_serve_several_envs(tmp_path: Path) -> None:
    path = tmp_path / "family.yaml"
    path.write_text(
        "env_id: Hopper-v4\n"
        "ppmo: {k: 64, gamma: 0.99}\n"
        "family:\n"
        "  - {when: {env_id: [Swimmer-v4, Swimmer-v5]}, ppmo: {gamma: 0.999}}\n"
        "  - {when: {env_id: Swimmer-v5, n: 2}, total_timesteps: 7}\n"
    )
    hopper, swimmer = (recipes.load(str(path), env_id=env_id) for env_id in (None, "Swimmer-v5"))
    assert (hopper.env_id, hopper.ppmo["gamma"]) == ("Hopper-v4", 0.99)
    assert (swimmer.env_id, swimmer.ppmo) == ("Swimmer-v5", {"k": 64, "gamma": 0.999})
    assert swimmer.total_timesteps != 7
    assert recipes.load(str(path), {"n": 2}, "pkg:Swimmer-v5").total_timesteps == 7
