"""Recipe files are checked data: every variant that ships can be carried out, and every mistake is named."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from random_env import RandomEnv

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.recipes.file import RecipeFile, check, files, load, load_source, recipes
from gym_taskdistill.recipes.recipe import Recipe
from gym_taskdistill.recipes.run import Run
from gym_taskdistill.recipes.stages import Distil, Imitate
from gym_taskdistill.recipes.stages.stage import RecipeError

ALL = {recipe.entry: recipe for recipe in recipes()}


@pytest.mark.slow
@pytest.mark.parametrize("entry", ALL)
def test_every_shipped_recipe_can_be_carried_out(entry: str) -> None:
    recipe = ALL[entry]
    promise = check(recipe)
    assert promise.task == recipe.task
    assert promise.k >= 2
    for name in recipe.sources:  # no stage reads what no stage makes
        check(load_source(name, recipe))
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert load(entry) == recipe


def test_each_task_has_one_default_variant() -> None:
    for file in files():
        for task in file.tasks:
            defaults = [name for name, says in file.variants(task).items() if says.get("default")]
            assert len(defaults) == 1, (file.path, task)


def distil(recipe: Recipe, number: int = 1) -> Distil:
    stage = recipe.stages[number - 1]
    assert isinstance(stage, Distil)
    return stage


def test_cases_follow_the_env_arguments() -> None:
    one, two, five = (distil(load("cartpole", {"n": n})) for n in (1, 2, 5))
    assert two.total_timesteps < five.total_timesteps
    assert (one.n_learners, two.n_learners) == (16, 4)
    assert one.learning_rate == two.learning_rate  # a section is merged, not replaced
    assert load("cartpole", {"n": 5}).env_kwargs == {"n": 5}


@pytest.mark.slow
def test_names_find_tasks_variants_and_entries() -> None:
    assert load("CartPoleND-v0").entry == "CartPoleND-v0/n=2,k_min"
    assert load("CartPoleND-v0/n=3,k512").entry == "CartPoleND-v0/n=3,k512"
    assert load("CartPoleND-v0/n=4").variant == "k_min"
    assert load("gym_taskdistill:CartPoleND-v0/k512", {"n": 3}).env_kwargs == {"n": 3}
    assert load("Walker2d-v4").variant == "one-step"
    assert load("Walker2d-v4/ten-steps").variant == "ten-steps"
    assert load("PongNoFrameskip-v4").variant == "level-4"
    assert load("PongNoFrameskip-v4/obs_type=ram,one-step").task.observation_space.shape == (128,)


def test_an_unknown_task_gets_the_default_recipe() -> None:
    acrobot = load("Acrobot-v1")
    assert (acrobot.env_id, acrobot.variant) == ("Acrobot-v1", "ridge")
    assert load("Acrobot-v1/ridge") == acrobot


def test_an_unknown_task_gets_settings_by_its_spaces() -> None:
    acrobot, pendulum = load("Acrobot-v1"), load("Pendulum-v1")
    assert (distil(acrobot).start.log_std, distil(pendulum).start.log_std) == (0, -0.5)
    assert distil(acrobot).learners == distil(pendulum).learners
    breakout = load("ALE/Breakout-v5")
    assert (breakout.variant, distil(breakout).learners) == ("level-4", "alpha_a")
    assert check(breakout).encoder_layers == 4
    with pytest.raises(RecipeError, match='no variant "one-step"'):
        load("ALE/Breakout-v5/one-step")


@pytest.mark.parametrize(("side", "layers"), [(48, 4), (16, 0)])
def test_images_whose_channels_come_last_are_distilled_too(side: int, layers: int) -> None:
    space = spaces.Box(0, 255, (side, side, 3), np.uint8)
    recipe = load(partial(RandomEnv, space, spaces.Box(-1, 1, (2,))))
    assert check(recipe).encoder_layers == layers  # of the Nature CNN, where it fits
    assert distil(recipe).k == 64


def test_the_default_one_step_variant_imitates_the_other() -> None:
    recipe = load("Pendulum-v1/one-step")
    stage = recipe.stages[0]
    assert isinstance(stage, Imitate)
    assert (stage.learners, stage.inner, stage.start.log_std) == ("alpha_c", {}, -2)
    assert recipe.needs == {"ridge": load("Pendulum-v1")}
    assert check(recipe).k == check(load("Pendulum-v1")).k


def test_an_argument_that_is_true_or_false_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(
        "tasks: [FrozenLake-v1 is_slippery=false]\n"
        "settings: {k: 4}\n"
        "variants: {mine: {stages: [ppmo]}}\n"
        "cases: [{when: {is_slippery: false}, settings: {k: 8}}]\n"
    )
    recipe = load(str(tmp_path / "my.yaml"))
    assert (recipe.env_kwargs, distil(recipe).k) == ({"is_slippery": False}, 8)
    assert load(f"{recipe.entry.rpartition(',')[0]}").env_kwargs == {"is_slippery": False}


def test_changes_reach_every_section() -> None:
    changes = {"k": 7, "gamma": 0.9, "n_agents": 3, "evaluation.n_episodes": 2, "start.x_std": 0.5}
    recipe = load("cartpole", None, changes)
    stage = distil(recipe)
    assert (stage.k, stage.gamma, stage.start.x_std) == (7, 0.9, 0.5)
    assert (recipe.evaluation.n_agents, recipe.evaluation.n_episodes) == (3, 2)
    hopper = load("Hopper-v4", None, {"1.total_timesteps": 64, "2.start.log_std": -2.0, "n_learners": 8})
    assert distil(hopper).total_timesteps == 64
    imitate = hopper.stages[1]
    assert isinstance(imitate, Imitate)
    assert (imitate.start.log_std, imitate.start.obs_scale, imitate.n_learners) == (-2.0, 0.1, 8)
    assert distil(hopper).start.log_std == 0.0


def test_a_recipe_tells_the_variants_that_it_needs(tmp_path: Path) -> None:
    text = """
        tasks: [Pendulum-v1]
        settings: {learners: alpha_c, k: 8, total_timesteps: 2048, n_envs: 8, n_steps: 32, batch_size: 128}
        variants:
          first: {stages: [ppmo]}
          second: {default: true, stages: [imitate: {expert: first}]}
    """
    (tmp_path / "my.yaml").write_text(text)
    recipe = load(str(tmp_path / "my.yaml"))
    check(recipe)
    (tmp_path / "my.yaml").unlink()
    read = Recipe.from_dict(recipe.to_dict())
    assert read == recipe
    assert load_source("first", read).stages[0].kind == "ppmo"


def test_a_variant_cannot_come_from_itself(tmp_path: Path) -> None:
    text = """
        tasks: [Pendulum-v1]
        settings: {learners: alpha_c, k: 8}
        variants:
          first: {stages: [imitate: {expert: second}]}
          second: {stages: [imitate: {expert: first}]}
    """
    (tmp_path / "my.yaml").write_text(text)
    with pytest.raises(RecipeError, match="cannot come from itself"):
        load(str(tmp_path / "my.yaml"))


def test_needs_are_not_nested_without_end() -> None:
    data = load("CartPoleND-v0/n=2,k_min").to_dict()
    for _ in range(20):
        data = {**data, "needs": {"first": data}}
    with pytest.raises(RecipeError, match="deep"):
        Recipe.from_dict(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gama": 1}, 'no setting "gama".*Did you mean "gamma"'),
        ({"4.gamma": 1}, "stages 1 to 1"),
        ({"n_rounds": 1}, "none of the stages .ppmo. has this setting"),
        ({"gamma": "0,99"}, "gamma is '0,99', but must be"),
        ({"inner.steps": 0}, "inner"),
        ({"learning_rate": "lin_fast"}, "lin_fast"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"n_agents": 1.5}, "n_agents is 1.5"),
        ({"final_learners": ["table1"]}, "table1"),
        ({"batch_size": 7}, "batch_size=7 must be a multiple"),
        ({"batch_size": 1000}, "must divide the rollout"),
        ({"encoder_layers": 9}, "has only 3 layers"),
        ({"share_features_extractor": True}, "needs an encoder"),
    ],
)
def test_wrong_changes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check(load("cartpole", None, changes))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cartpol", 'Did you mean "cartpole"'),
        ("nowhere.yaml", "nowhere.yaml"),
        ("Nothing-v7", "no recipe and no env"),
        ("Walker2d-v4/ten-step", 'Did you mean "ten-steps"'),
    ],
)
def test_an_unknown_name_is_named(name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load(name)


#: A recipe that is right, and one of each kind of mistake in it.
RIGHT = """
tasks: [CartPoleND-v0 n=1]
settings: {gamma: 0.99, k: 2}
evaluation: {n_agents: 2}
variants:
  mine:
    stages:
      - ppmo: {total_timesteps: 1000}
      - imitate: {expert: previous}
cases:
  - when: {n: 3}
    settings: {k: 4}
"""

MISTAKES = [
    *(("steps: 1000", f"steps: {value}") for value in ("0", "-5", "1.5", "many", "[1]", "null")),
    *(
        ("gamma: 0.99", f"gamma: {value}")
        for value in ("0,99", "1.5", "-0.1", ".nan", ".inf", "{a: 1}", "true")
    ),
    *(("k: 2", f"k: {value}") for value in ("0", "-1", "k_mni", "2.5", "[2]", "99999999999999999999999")),
    *(
        ("k: 2}", f"k: 2, {more}}}")
        for more in (
            "learning_rate: .nan",
            "learning_rate: -1",
            "learning_rate: lin_",
            "learning_rate: lin_a_b",
            "learning_rate: lin_0.1_0.2_0.3",
            "learning_rate: [1]",
            "learning_rates: {inner: 1}",
            "learning_rates: 3",
            "learning_rates: {inner_lr: lin_x}",
            "learners: alpha_z",
            "learners: {family: mlp, width: 0}",
            "learners: {family: mlp, breadth: 3}",
            "learners: {family: tree}",
            "learners: 3",
            "learners: {width: 3}",
            "inner: {steps: 0}",
            "inner: {steps: 1.5}",
            "inner: {step: 3}",
            "inner: {lr: -1}",
            "inner: {lr: .inf}",
            "inner: {momentum: 1}",
            "inner: {lr_decay: 2}",
            "inner: {step_size: big}",
            "inner: 10",
            "start: {x_std: 0}",
            "start: {x: 1}",
            "start: {log_std: 99}",
            "start: [1]",
            "n_learners: 0",
            "n_learners: 3",
            "n_learners: four",
            "n_envs: 7",
            "n_steps: 0",
            "n_epochs: 0",
            "n_epochs: 2.0.1",
            "batch_size: 1000",
            "batch_size: -8",
            "gae_lambda: 2",
            "clip_range: -0.2",
            "clip_range: wide",
            "ent_coef: -1",
            "vf_coef: .nan",
            "max_grad_norm: 0",
            "target_kl: 0",
            "critic_warmup: -1",
            "critic: alpha_q",
            "encoder_layers: -1",
            "encoder_layers: 8",
            "backend: fast",
            "normalize: maybe",
            "clip_reward: 2",
            "mixed_precision: 16",
            "pixel_statistics: -4",
            "gama: 0.9",
            "variant: mine",
        )
    ),
    *(
        ("n_agents: 2", more)
        for more in (
            "n_agents: 0",
            "n_agents: 1e400",
            "n_agent: 2",
            "eval_freq: often",
            "final_learners: [typo]",
            "final_learners: alpha_c",
            "final_episodes: 1.5",
            "n_episodes: -1",
        )
    ),
    *(
        ("expert: previous", more)
        for more in (
            "expert: 3",
            "expert: ''",
            "experts: previous",
            "expert: mine",
            "expert: nobody",
            "expert: NoSuchEnv-v0/one-step",
            "expert: action:99",
            "expert: action:-1",
            "expert: ppo:nowhere.zip",
            "expert: previous, beta: 2",
            "expert: previous, noise: -1",
            "expert: previous, temperature: 0",
            "expert: previous, hard_fraction: 7",
            "expert: previous, n_rounds: 0",
            "expert: previous, n_updates: 0",
            "expert: previous, draw_every: 0",
            "expert: previous, batch_size: 9",
            "expert: previous, lookahead: 40",
            "expert: previous, lookahead: {step: 4}",
            "expert: previous, lookahead: {steps: 0}",
            "expert: previous, fine_tune: true, k: 5",
            "expert: previous, fine_tune: later",
        )
    ),
    ("- ppmo: {total_timesteps: 1000}\n", ""),  # previous of nothing
    ("- ppmo: {total_timesteps: 1000}", "- ppmp: {total_timesteps: 1000}"),
    ("- ppmo: {total_timesteps: 1000}", "- {ppmo: {}, imitate: {}}"),
    ("- ppmo: {total_timesteps: 1000}", "- 3"),
    ("- ppmo: {total_timesteps: 1000}", "- ppmo: 3"),
    ("- ppmo: {total_timesteps: 1000}", "- adapt: {width: 32}"),
    ("- ppmo: {total_timesteps: 1000}", "- roll_back"),
    ("- imitate: {expert: previous}", "- adapt: {width: 0}"),
    ("- imitate: {expert: previous}", "- adapt: {log_std: 99}"),
    ("- imitate: {expert: previous}", "- roll_back"),
    ("- imitate: {expert: previous}", "- ppmo: {k: 3}"),
    ("- imitate: {expert: previous}", "- ppmo: {learners: xavier}"),
    ("    stages:\n", "    stages: 3\n    other:\n"),
    ("    stages:\n", "    phases:\n"),
    ("tasks: [CartPoleND-v0 n=1]", "tasks: CartPoleND-v0"),
    ("tasks: [CartPoleND-v0 n=1]", "tasks: []"),
    ("tasks: [CartPoleND-v0 n=1]", "tasks: [3]"),
    ("tasks: [CartPoleND-v0 n=1]", "tasks: [CartPoleND-v0 n]"),
    ("tasks: [CartPoleND-v0 n=1]", "tasks: [NoSuchEnv-v0]"),
    ("tasks: [CartPoleND-v0 n=1]", "tasks: [CartPoleND-v0 n=zero]"),
    ("tasks: [CartPoleND-v0 n=1]", "tasks: [CartPoleND-v0 n=0]"),
    ("tasks: [CartPoleND-v0 n=1]", "tasks: [CartPoleND-v0 m=1]"),
    ("tasks: [CartPoleND-v0 n=1]", "task: CartPoleND-v0"),
    ("tasks: [CartPoleND-v0 n=1]", "tasks: &a [*a]"),
    ("tasks: [CartPoleND-v0 n=1]", "tasks: !!python/object/apply:os.system ['true']"),
    ("tasks: [CartPoleND-v0 n=1]", "tasks: [CartPoleND-v0 n=1]\ntasks: [Ant-v4]"),
    ("variants:", "varieties:"),
    ("  mine:", "  mine: 3\n  other:"),
    ("  mine:", "  '../mine':"),
    ("  mine:", "  mine:\n    default: perhaps"),
    ("settings: {gamma", "settings: 3 #"),
    ("cases:\n", "cases: 3\nmore:\n"),
    ("when: {n: 3}", "if: {n: 3}"),
    ("when: {n: 3}", "when: 3"),
    *(
        ("when: {n: 3}", f"when: {{{more}}}")
        for more in (
            "m: 3",
            "acton_space: Discrete",
            "action_space: discrete",
            "action_space: {min: 3}",
            "action_space: [Box, 3]",
            "observation_space: images",
            "observation_size: many",
            "observation_size: [8, true]",
            "observation_size: {least: 3}",
            "observation_size: {min: few}",
            "observation_size: {}",
            "n: {max: [3]}",
        )
    ),
    ("settings: {k: 4}", "setings: {k: 4}"),
    ("settings: {k: 4}", "settings: {kk: 4}"),
    ("settings: {k: 4}", "variants: {mine: 3}"),
    ("\ntasks", "\n- tasks"),
    ("\ntasks", "\n\ttasks"),
    ("\ntasks", "\n" + "{a: " * 60 + "1" + "}" * 60 + "\ntasks"),
    ("\ntasks", "\n# " + "x" * 70_000 + "\ntasks"),
]


def test_the_recipe_that_is_right_is_taken(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RIGHT)
    recipe = load(str(tmp_path / "mine.yaml"))
    check(recipe)
    assert [stage.kind for stage in recipe.stages] == ["ppmo", "imitate"]
    assert RecipeFile.read(tmp_path / "mine.yaml").tasks == [recipe.task]


def test_there_are_a_hundred_mistakes() -> None:
    assert len(MISTAKES) >= 100
    assert all(part in RIGHT for part, _ in MISTAKES)


@pytest.mark.slow
@pytest.mark.parametrize(("part", "mistake"), MISTAKES)
def test_a_mistake_is_refused_before_there_is_a_folder(part: str, mistake: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(RIGHT.replace(part, mistake))
    with pytest.raises(TaskDistillError) as error:
        Run.create(load(str(path)), 0, tmp_path / "runs")
    message = str(error.value)
    assert "\n" not in message and len(message) < 1200
    assert message[0].isalnum() or message[0] in "\"'-"
    assert not (tmp_path / "runs").exists()
