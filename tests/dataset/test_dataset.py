"""The dataset and its file: exact round trips, and a clear refusal of everything else."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import safetensors.torch
import torch

from gym_taskdistill.dataset import file as dataset_file
from gym_taskdistill.dataset.card import Card, Score, space_to_dict, versions
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.file import read_card
from gym_taskdistill.dataset.spaces import as_space_dict, k_min, space_from_dict
from gym_taskdistill.errors import DatasetError, TaskDistillError, did_you_mean
from gym_taskdistill.files import canonical
from gym_taskdistill.inner.rules import InnerSGD

KEY = "gym-taskdistill"

SCORE = Score(
    learners="alpha_c",
    deterministic=False,
    n_agents=2,
    n_episodes=3,
    seed=7,
    env_id="CartPole-v1",
    mean=480.5,
    std=1.25,
    min=479.25,
    agent_means=(479.254, 481.75),
)


def discrete_card(**changes: Any) -> Card:
    fields: dict[str, Any] = {
        "env_id": "CartPole-v1",
        "observation_space": {"type": "Box", "shape": [4], "dtype": "float32"},
        "action_space": {"type": "Discrete", "n": 2},
        "learners": {"alpha_c": {"hidden": [64, 64]}},
        "variant": "k_min",
        "recipe": {"lr": 2.5e-4, "note": 'quotes " and \\ and ± and \x07'},
        "seed": 1,
        "num_timesteps": 1000,
        "wall_clock_s": 1e-05,
        "versions": {"python": "3.11.7"},
        "created": "2026-01-31",
        "notes": "two\nlines",
        "scores": (SCORE,),
    }
    return Card(**(fields | changes))


def discrete(**changes: Any) -> DistilledDataset:
    generator = torch.Generator().manual_seed(0)
    fields: dict[str, Any] = {
        "x": torch.randn(2, 4, generator=generator),
        "y": torch.randn(2, 2, generator=generator),
        "rule": InnerSGD(lr=0.1 + 0.2),
        "card": discrete_card(),
    }
    return DistilledDataset(**(fields | changes))


def continuous(**changes: Any) -> DistilledDataset:
    """A dataset that uses every optional field, for Pendulum."""
    env = gym.make("Pendulum-v1")
    card = discrete_card(
        env_id="Pendulum-v1",
        env_kwargs={"g": 9.5},
        observation_space=space_to_dict(env.observation_space),
        action_space=space_to_dict(env.action_space, bounds=True),
    )
    generator = torch.Generator().manual_seed(0)
    fields: dict[str, Any] = {
        "x": torch.randn(5, 3, generator=generator),
        "y": torch.randn(5, 1, generator=generator),
        "rule": InnerSGD(5.31, 0.25, 2, 0.5, 0.9, "polyak"),
        "log_std": torch.tensor([-0.0]),
        "obs_mean": torch.tensor([1.0, 2.0, 3.0]),
        "obs_var": torch.tensor([0.25, 1.0, 4.0]),
        "clip_obs": 10.0,
        "obs_scale": torch.tensor([0.5, 1.0, 2.0]),
        "obs_shift": torch.tensor([0.1, 0.0, -3.0]),
        "encoder": {"0.weight": torch.randn(3, 3, generator=generator), "0.bias": torch.zeros(3)},
        "encoder_layers": 1,
        "card": card,
    }
    return DistilledDataset(**(fields | changes))


# --- the object ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("c", "k"), [(2, 2), (3, 3), (4, 3), (6, 4), (8, 5), (10, 6), (18, 10)])
def test_k_min_is_equation_3(c: int, k: int) -> None:
    assert k_min(c) == DistilledDataset.k_min(c) == k


@pytest.mark.parametrize("c", [1, 0, -4, 2.0, True, "4", None])
def test_k_min_refuses(c: Any) -> None:
    with pytest.raises(DatasetError, match="n_actions"):
        k_min(c)


def test_properties_and_repr() -> None:
    data = continuous()
    assert (data.k, data.n_outputs, data.obs_shape) == (5, 1, (3,))
    assert repr(data) == (
        "DistilledDataset(Pendulum-v1 g=9.5, x=(5, 3), y=(5, 1), rule=sgd(lr=5.31, lr_hidden=0.25, "
        "steps=2, momentum=0.5, lr_decay=0.9, step_size=polyak), log_std=(1,), obs_mean=(3,), "
        "obs_scale=(3,), obs_shift=(3,), encoder_layers=1)"
    )


def test_tensors_are_detached_float32_copies() -> None:
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    data = discrete(x=x)
    assert data.x.dtype == torch.float32 and not data.x.requires_grad
    before = data.x.clone()
    with torch.no_grad():
        x.zero_()
    assert torch.equal(data.x, before)


def test_equality_is_bitwise() -> None:
    data = continuous()
    assert data == continuous() and hash(data) == hash(continuous())
    assert data != continuous(log_std=torch.tensor([0.0]))  # -0.0 == 0.0, but not bit by bit
    rate = {"lr": float(np.nextafter(5.31, 6))}
    assert data != data.replace(rule=dataclasses.replace(data.rule, **rate))
    assert data != data.replace(card=data.card.replace(notes="other"))
    assert data != data.replace(x=data.x.reshape(5, 3).flip(0))
    assert data != 3


def test_digest_separates_names_and_shapes() -> None:
    data = continuous()
    swapped = data.replace(obs_mean=data.obs_var, obs_var=data.obs_mean)
    renamed = data.replace(encoder={"1.weight": torch.zeros(3, 3)})
    reshaped = data.replace(encoder={"1.weight": torch.zeros(9)})
    assert len({data.digest, swapped.digest, renamed.digest, reshaped.digest}) == 4


def test_the_digest_is_of_what_learners_train_on_and_act_with() -> None:
    data = continuous()
    story = data.card.replace(notes="other", seed=9, scores=(), wall_clock_s=3.0, created="", recipe={})
    retold = data.replace(card=story)
    assert retold.digest == data.digest and retold != data
    others = (
        data.replace(rule=InnerSGD(lr=5.31)),
        data.replace(clip_obs=9.0),
        data.replace(y=-data.y),
        data.replace(card=data.card.replace(learners={"family": "mlp"})),
    )
    assert len({data.digest, *(other.digest for other in others)}) == 5


def test_normalize() -> None:
    data = continuous()
    obs = torch.tensor([[1.0, 2.0, 3.0], [1.5, 1.0, 7.0], [100.0, -100.0, 3.0]])
    expected = torch.tensor([[0.0, 0.0, 0.0], [1.0, -1.0, 2.0], [10.0, -10.0, 0.0]])
    placed = expected * torch.tensor([0.5, 1.0, 2.0]) + torch.tensor([0.1, 0.0, -3.0])
    torch.testing.assert_close(data.normalize(obs), placed)
    data = data.replace(obs_scale=None, obs_shift=None)
    torch.testing.assert_close(data.normalize(obs), expected)
    torch.testing.assert_close(data.normalize(obs[1]), expected[1])
    unbounded = data.replace(clip_obs=None).normalize(obs)
    torch.testing.assert_close(unbounded[2], torch.tensor([198.0, -102.0, 0.0]))
    four = torch.zeros(3, 4)
    assert discrete().normalize(four) is four
    for wrong in (torch.zeros(4, 1), torch.tensor(0.0), torch.zeros(3, 4)):
        with pytest.raises(DatasetError, match="observation shape"):
            data.normalize(wrong)


def test_to_moves_every_tensor() -> None:
    data = continuous()
    assert data.to("cpu") == data and data.to("cpu").x is not data.x
    if torch.cuda.is_available():
        moved = data.to("cuda")
        assert all(tensor.is_cuda for tensor in moved._tensors().values())
        assert moved == data and moved.to("cpu") == data


BAD_DISCRETE: list[tuple[dict[str, Any], str]] = [
    ({"x": np.zeros((2, 4))}, "x must be a tensor"),
    ({"x": torch.zeros(2, 4, dtype=torch.int64)}, "floating-point"),
    ({"x": torch.zeros(4)}, "shape"),
    ({"x": torch.zeros(0, 4), "y": torch.zeros(0, 2)}, "non-empty"),
    ({"x": torch.zeros(3, 4)}, "3 instances"),
    ({"x": torch.full((2, 4), torch.nan)}, "x holds NaN"),
    ({"x": torch.full((2, 4), 1e300, dtype=torch.float64)}, "infinite"),
    ({"x": torch.zeros(2, 5)}, "observation space"),
    ({"y": torch.zeros(2)}, "shape"),
    ({"y": torch.zeros(2, 3)}, "action space Discrete"),
    ({"y": None}, "y must be a tensor"),
    ({"rule": 0.3}, "rule must be a mapping"),
    ({"rule": {"lr": 0.0}}, "lr must be a number from 1e-12 to 1e.12"),
    ({"rule": InnerSGD(lr=torch.tensor(-1.0))}, "lr must be a number from 1e-12 to 1e.12"),
    ({"rule": InnerSGD(lr=torch.tensor(torch.nan))}, "lr must be a number from 1e-12 to 1e.12"),
    ({"rule": {"kind": "adam"}}, "no inner rule 'adam'"),
    ({"log_std": torch.zeros(2)}, "continuous"),
    ({"obs_mean": torch.zeros(4)}, "both or neither"),
    ({"obs_mean": torch.zeros(4), "obs_var": -torch.ones(4)}, "negative"),
    ({"obs_mean": torch.zeros(4), "obs_var": torch.ones(1)}, "obs_var has shape"),
    ({"obs_scale": torch.ones(3)}, "obs_scale has shape"),
    ({"obs_shift": torch.ones(3)}, "obs_shift has shape"),
    ({"obs_scale": torch.zeros(4)}, "not above 0"),
    ({"clip_obs": 10.0}, "statistics"),
    ({"encoder_layers": 1}, "encoder"),
    ({"encoder": {"0.weight": torch.zeros(1)}}, "encoder"),
    ({"encoder": {"0.weight": 1.0}, "encoder_layers": 1}, "encoder.0.weight must be a tensor"),
    ({"encoder": 3}, "state dict"),
    ({"card": {}}, "card must be a Card"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_DISCRETE)
def test_construction_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message) as raised:
        discrete(**changes)
    assert "\n" not in str(raised.value)


def test_replace_checks() -> None:
    assert discrete().replace(encoder_layers=0, rule=InnerSGD(steps=3)).rule.steps == 3
    with pytest.raises(DatasetError, match="encoder_layers"):
        discrete().replace(encoder_layers=-1)
    with pytest.raises(DatasetError, match='Did you mean "rule"'):
        discrete().replace(rul=InnerSGD())


# --- the card -----------------------------------------------------------------------------------


def test_card_round_trip_through_json() -> None:
    for card in (discrete_card(), continuous().card):
        assert Card.from_dict(json.loads(json.dumps(card.to_dict()))) == card


def test_card_holds_plain_copies() -> None:
    inner = [1, 2]
    card = discrete_card(env_kwargs={"b": (1, np.int64(2)), "a": np.float32(0.5), "c": inner})
    inner.append(3)
    assert card.env_kwargs == {"a": 0.5, "b": [1, 2], "c": [1, 2]}
    assert type(card.env_kwargs["b"][1]) is int
    assert card.task == "CartPole-v1 a=0.5 b=[1, 2] c=[1, 2]"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_id": ""}, "env_id"),
        ({"env_kwargs": {"f": print}}, "card.env_kwargs.f"),
        ({"env_kwargs": {1: 2}}, "not strings"),
        ({"recipe": {"a": {"lr": float("inf")}}}, "card.recipe.a.lr"),
        ({"observation_space": {"type": "Text"}}, "observation_space.type"),
        ({"observation_space": {"type": "Box", "shape": [4], "dtype": "real"}}, "dtype"),
        ({"action_space": {"type": "Discrete"}}, "action_space.n"),
        ({"seed": 1.0}, "card.seed"),
        ({"num_timesteps": -1}, "at least 0"),
        ({"created": "yesterday"}, "ISO"),
        ({"scores": [{}]}, "scores"),
        ({"default": 1}, "default"),
        ({"versions": {"a": 1}}, "versions.a"),
        ({"format_version": 3}, "format_version"),
    ],
)
def test_card_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        discrete_card(**changes)


def test_card_from_dict_refuses() -> None:
    good = discrete_card().to_dict()
    with pytest.raises(DatasetError, match='Did you mean "recipe"'):
        Card.from_dict(good | {"recipes": {}})
    with pytest.raises(DatasetError, match='no field "env_id"'):
        Card.from_dict({key: value for key, value in good.items() if key != "env_id"})
    with pytest.raises(DatasetError, match="must be a dictionary"):
        Card.from_dict([])  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match='no field "mean"'):
        Card.from_dict(good | {"scores": [{k: v for k, v in SCORE.to_dict().items() if k != "mean"}]})


def test_score() -> None:
    assert SCORE.agent_means == (479.25, 481.75)
    assert Score.from_dict(SCORE.to_dict()) == SCORE
    for part in ("2 fresh alpha_c", "3 full episodes of CartPole-v1", "stochastic", "seed 7"):
        assert part in SCORE.protocol
    with pytest.raises(DatasetError, match="2 agents"):
        SCORE.replace(agent_means=(1.0,))
    with pytest.raises(DatasetError, match="list of numbers"):
        SCORE.replace(agent_means=5)
    with pytest.raises(DatasetError, match="std"):
        SCORE.replace(std=-1.0)


def test_versions_names_what_is_installed() -> None:
    found = versions()
    assert found["torch"] == torch.__version__ and found["gymnasium"] == gym.__version__
    assert found["numpy"] == np.__version__ and all(found.values())


def test_space_to_dict() -> None:
    spaces = gym.spaces
    assert space_to_dict(spaces.Discrete(3, start=1)) == {"type": "Discrete", "n": 3, "start": 1}
    image = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    assert space_to_dict(image) == {"type": "Box", "shape": [4, 84, 84], "dtype": "uint8"}
    half = spaces.Box(np.array([-1, -np.inf]), np.array([np.inf, 2]), dtype=np.float64)
    described = space_to_dict(half, bounds=True)
    assert described["low"] == [-1.0, None] and described["high"] == [None, 2.0]
    assert json.loads(json.dumps(described, allow_nan=False)) == described
    with pytest.raises(DatasetError, match="Text spaces are not supported"):
        space_to_dict(spaces.Text(3))


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Discrete(3, start=-1),
        gym.spaces.MultiDiscrete(np.array([[2, 3]]), start=np.array([[1, 0]])),
        gym.spaces.MultiBinary((2, 2)),
        gym.spaces.Box(-0.1, 0.1, (2,), np.float64),
        gym.spaces.Box(0, 255, (8, 8, 3), np.uint8),
        # The order of keys counts: flat observations follow it.
        gym.spaces.Dict(
            [("b", gym.spaces.Discrete(2)), ("a", gym.spaces.Tuple([gym.spaces.MultiBinary(2)]))]
        ),
    ],
    ids=str,
)
def test_spaces_survive_their_description(space: gym.Space) -> None:
    described = json.loads(json.dumps(as_space_dict(space_to_dict(space, bounds=True), "space")))
    assert space_from_dict(described) == space


@pytest.mark.parametrize(
    "described",
    [
        {"type": "MultiDiscrete", "nvec": [2, 0]},
        {"type": "MultiDiscrete", "nvec": [[2], [2, 3]]},
        {"type": "MultiDiscrete", "nvec": [2, 3], "start": [1]},
        {"type": "MultiBinary", "n": [2**20, 2**20]},
        {"type": "Dict", "spaces": {"a": {"type": "Discrete", "n": 2}}},
        {"type": "Tuple", "spaces": []},
        {"type": "Dict", "spaces": [["a", {"type": "Text"}]]},
    ],
)
def test_a_wrong_description_is_refused(described: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match=r"^space\."):
        as_space_dict(described, "space")


def test_errors() -> None:
    assert issubclass(DatasetError, TaskDistillError) and issubclass(DatasetError, ValueError)
    assert did_you_mean("k_mim", ["k_min"]) == ' Did you mean "k_min"?'
    assert did_you_mean("zzz", ["k_min"]) == ""


# --- environments -------------------------------------------------------------------------------


def test_check_env_accepts_the_task() -> None:
    discrete().check_env(gym.make("CartPole-v1"))
    discrete().check_env(gym.make("CartPole-v1").unwrapped)
    discrete().check_env(gym.make_vec("CartPole-v1", 2))
    discrete().check_env(gym.make_vec("CartPole-v1", 2, vectorization_mode="sync"))
    continuous().check_env(gym.make("Pendulum-v1", g=9.5))
    env = gym.make("Pendulum-v1")
    assert isinstance(env.action_space, gym.spaces.Box)
    wide = gym.spaces.Box(-9, 9, (3,), np.float64)  # bounds and precision do not matter
    continuous().check_env((wide, env.action_space))


def test_check_env_accepts_without_spec() -> None:
    env = gym.make("CartPole-v1").unwrapped
    env.spec = None
    discrete().check_env(env)
    # A key that the card does not name, or the spec does not, is left to the spaces.
    discrete().check_env(gym.make("CartPole-v1", sutton_barto_reward=True))
    continuous().check_env(gym.make("Pendulum-v1"))


def test_check_env_ignores_the_module_prefix() -> None:
    card = discrete_card(env_id="gymnasium:CartPole-v1")
    discrete(card=card).check_env(gym.make("CartPole-v1"))


BOX4 = gym.spaces.Box(-1, 1, (4,))
IMAGE = gym.spaces.Box(np.zeros((9, 9)), np.arange(81.0).reshape(9, 9), dtype=np.float64)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (lambda: gym.make("Pendulum-v1"), "distilled for CartPole-v1, .* is Pendulum-v1"),
        (lambda: gym.make_vec("Acrobot-v1", 2), "is Acrobot-v1"),
        (lambda: (gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2)), r"observations Box\(\(4,"),
        (lambda: (gym.spaces.Box(0, 9, (4,), np.uint8), gym.spaces.Discrete(2)), "observations"),
        (lambda: (IMAGE, gym.spaces.Discrete(2)), "observations"),
        (lambda: (gym.spaces.Discrete(4), gym.spaces.Discrete(2)), "observations"),
        (lambda: (gym.spaces.Dict({"a": BOX4}), gym.spaces.Discrete(2)), "observations"),
        (lambda: (BOX4, gym.spaces.Discrete(3)), r"actions Discrete\(2\)"),
        (lambda: (BOX4, gym.spaces.Discrete(2, start=1)), "actions"),
        (lambda: (BOX4, BOX4), "actions"),
        (lambda: (BOX4,), "pair"),
        (lambda: "CartPole-v1", "pair"),
    ],
)
def test_check_env_refuses(env: Callable[[], Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message) as raised:
        discrete().check_env(env())
    assert "\n" not in str(raised.value)


def test_check_env_refuses_other_kwargs() -> None:
    with pytest.raises(DatasetError, match=r"made with g=1\.0"):
        continuous().check_env(gym.make("Pendulum-v1", g=1.0))


# --- the file -----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [discrete, continuous])
def test_round_trip_is_exact(make: Callable[[], DistilledDataset], tmp_path: Path) -> None:
    data = make()
    path = data.save(tmp_path / "a.safetensors")
    loaded = DistilledDataset.load(path)
    assert loaded == data and loaded.card == data.card and loaded.digest == data.digest
    assert loaded.rule == data.rule and loaded.encoder.keys() == data.encoder.keys()
    for name in ("x", "y", "log_std", "obs_mean", "obs_var", "obs_scale", "obs_shift"):
        before, after = getattr(data, name), getattr(loaded, name)
        assert before is after is None or torch.equal(before, after)
    assert read_card(path) == data.card


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    data = continuous()
    for folder in "abc":
        (tmp_path / folder).mkdir()
    data.save(tmp_path / "a/d")
    continuous().save(tmp_path / "b/d")
    DistilledDataset.load(tmp_path / "a/d").save(tmp_path / "c/d")
    for suffix in (".safetensors", ".json"):
        assert len({(tmp_path / f / f"d{suffix}").read_bytes() for f in "abc"}) == 1


def test_readable_card_repeats_the_content(tmp_path: Path) -> None:
    path = discrete().save(tmp_path / "k.5")
    assert path.name == "k.5.safetensors"
    text = (tmp_path / "k.5.json").read_text("utf-8")
    with safetensors.safe_open(path, framework="pt") as file:
        assert json.loads(text) == json.loads(file.metadata()[KEY])
    assert '"shape": [4]' in text
    assert "±" in text and json.loads(text)["rule"] == discrete().rule.to_dict()


def test_loading_reads_only_the_safetensors(tmp_path: Path) -> None:
    path = discrete().save(tmp_path / "d")
    (tmp_path / "d.json").write_text("rubbish")
    assert DistilledDataset.load(path) == discrete()


def test_load_finds_suffix_and_folder(tmp_path: Path) -> None:
    discrete().save(tmp_path / "dataset")
    for path in (tmp_path, tmp_path / "dataset", str(tmp_path / "dataset.safetensors")):
        assert DistilledDataset.load(path) == discrete()


def test_saving_leaves_no_other_files(tmp_path: Path) -> None:
    discrete().save(tmp_path / "d")
    discrete(rule=InnerSGD(steps=2)).save(tmp_path / "d")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.json", "d.safetensors"]
    assert DistilledDataset.load(tmp_path / "d").rule.steps == 2


@pytest.mark.parametrize("fails_at", [1, 2])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_crash_while_saving_leaves_a_readable_dataset(
    fails_at: int, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = discrete(), discrete(rule=InnerSGD(steps=2))
    old.save(tmp_path / "d")
    calls, replace = 0, os.replace

    def failing(source: Any, target: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises((DatasetError, KeyboardInterrupt)):
        new.save(tmp_path / "d")
    assert DistilledDataset.load(tmp_path / "d") == (old if fails_at == 1 else new)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.json", "d.safetensors"]


def test_save_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="create the folder .*nowhere"):
        discrete().save(tmp_path / "nowhere" / "d")
    (tmp_path / "d.safetensors").mkdir()
    with pytest.raises(DatasetError, match="Cannot save to"):
        discrete().save(tmp_path / "d")
    assert [p.name for p in tmp_path.iterdir()] == ["d.safetensors"]


def test_load_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="There is no dataset file .*none"):
        DistilledDataset.load(tmp_path / "none")
    with pytest.raises(DatasetError, match="folder without a dataset.safetensors"):
        DistilledDataset.load(tmp_path)


def refused(path: Path, message: str | None = None) -> None:
    """Assert one sentence that names the file, whatever the damage."""
    with pytest.raises(DatasetError, match=message) as raised:
        DistilledDataset.load(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"x", b"not a safetensors file at all", b"\xff" * 64])
def test_load_refuses_other_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    path.write_bytes(content)
    refused(path, "not a safetensors file")


def test_load_refuses_every_truncation(tmp_path: Path) -> None:
    content = continuous().save(tmp_path / "d").read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in [*range(0, len(content), 37), len(content) - 1]:
        path.write_bytes(content[:length])
        refused(path)
    path.write_bytes(content + b"\0")
    refused(path)


def test_load_refuses_every_flipped_bit(tmp_path: Path) -> None:
    content = continuous().save(tmp_path / "d").read_bytes()
    bits = 8 * len(content)
    path = tmp_path / "flipped.safetensors"
    # All of the length field, and an even spread (a prime step meets all eight bits) of the rest.
    step = next(s for s in range(bits // 200, bits) if all(s % p for p in range(2, 40)))
    for bit in [*range(64), *range(64, bits, step)]:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        refused(path)


def test_load_refuses_foreign_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(2, 4)}, path)
    refused(path, "not a gym-taskdistill dataset")
    safetensors.torch.save_file({"x": torch.zeros(2, 4)}, path, {KEY: "{"})
    refused(path, "damaged")
    safetensors.torch.save_file({"x": torch.zeros(2, 4)}, path, {KEY: "[" * 100_000})
    refused(path, "damaged")


def forge(path: Path, edit: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> None:
    """Write a file with a valid checksum over edited content."""
    data = continuous()
    document, tensors = data._content(), data._tensors()
    edit(document, tensors)
    document["tensors"] = {name: list(tensor.shape) for name, tensor in sorted(tensors.items())}
    floats = {name: tensor.float() for name, tensor in tensors.items()}
    document["sha256"] = dataset_file.checksum(floats, document)
    text = canonical(document)
    path.write_bytes(safetensors.torch.save(tensors, {KEY: text}))


def test_forge_is_faithful(tmp_path: Path) -> None:
    forge(tmp_path / "f.safetensors", lambda document, tensors: None)
    assert DistilledDataset.load(tmp_path / "f") == continuous()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d, t: d.update(format_version=3), "newer gym-taskdistill .* upgrade"),
        (lambda d, t: d.update(format_version=0), "damaged"),
        (lambda d, t: d.update(format_version="1"), "damaged"),
        (lambda d, t: d.update(surprise=1), "damaged"),
        (lambda d, t: d.update(format_version=True), "damaged"),
        (lambda d, t: d.update(format_version=1), "damaged"),
        (lambda d, t: d.pop("rule"), "damaged"),
        (lambda d, t: d.update(rule=3), "rule must have a kind"),
        (lambda d, t: d["rule"].update(lr=-1.0), "lr must be"),
        (lambda d, t: d["rule"].update(lr=10**400), "lr must be"),
        (lambda d, t: d["rule"].update(lr="0"), "lr must be"),
        (lambda d, t: d["rule"].update(steps=None), "steps must be"),
        (lambda d, t: d["rule"].update(steps=10**9), "steps must be"),
        (lambda d, t: d.update(card=[]), "card is a list, but must be a dictionary"),
        (lambda d, t: d["card"].update(env_id=3), "card.env_id"),
        (lambda d, t: d["card"].pop("learners"), "learners"),
        (lambda d, t: d["card"].update(scores=[3]), "score"),
        (lambda d, t: t.update(x=torch.full((5, 3), torch.nan)), "x holds NaN"),
        (lambda d, t: t.update(x=torch.zeros(5, 2)), "obs_mean has shape"),
        (lambda d, t: t.update(y=torch.zeros(4, 1)), "instances"),
        (lambda d, t: t.update(x=torch.zeros(5, 3).double()), "float64"),
        (lambda d, t: t.update(x=torch.zeros(5, 3).bfloat16()), "bfloat16"),
        (lambda d, t: t.pop("x"), 'tensor "x" is missing'),
        (lambda d, t: t.pop("obs_var"), "both or neither"),
        (lambda d, t: t.update(z=torch.zeros(1)), 'tensor "z" is unknown'),
        (lambda d, t: t.update(card=torch.zeros(1)), 'tensor "card" is unknown'),
    ],
)
def test_load_refuses_forged_content(
    edit: Callable[[dict[str, Any], dict[str, torch.Tensor]], None], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "f.safetensors"
    forge(path, edit)
    refused(path, message)


def first_version(data: DistilledDataset, path: Path, **scalars: Any) -> None:
    """Write a dataset as version 1 did, with the inner rule in scalars of its own."""
    document, tensors = data._content(), data._tensors()
    del document["rule"]
    document |= {"format_version": 1, **scalars}
    document["sha256"] = dataset_file.checksum(tensors, document)
    path.write_bytes(safetensors.torch.save(tensors, {KEY: canonical(document)}))


def test_files_of_version_1_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    first_version(discrete(), path, inner_lr=0.1 + 0.2, inner_steps=1)
    assert DistilledDataset.load(path) == discrete() and read_card(path) == discrete().card
    optional = {"inner_momentum": 0.5, "inner_lr_decay": 0.9, "inner_step_size": "polyak"}
    first_version(continuous(), path, inner_lr=5.31, inner_steps=2, inner_lr_hidden=0.25, **optional)
    assert DistilledDataset.load(path) == continuous()
    first_version(discrete(), path, inner_lr=0.3)
    refused(path, "damaged")
    first_version(discrete(), path, inner_lr=-0.3, inner_steps=1)
    refused(path, "lr must be")


def test_load_names_added_and_lost_tensors(tmp_path: Path) -> None:
    path = discrete().save(tmp_path / "d")
    with safetensors.safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {k: file.get_tensor(k) for k in file.keys()}
    safetensors.torch.save_file(tensors | {"z": torch.zeros(1)}, path, metadata)
    refused(path, "should not hold, .* the tensors z")
    safetensors.torch.save_file({"x": tensors["x"]}, path, metadata)
    refused(path, "it lacks, .* the tensors y")
    safetensors.torch.save_file({k: v + 1 for k, v in tensors.items()}, path, metadata)
    refused(path, "checksum")
