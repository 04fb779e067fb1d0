"""The page of results says what the cards say, and is up to date."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import make_results
import pytest
import readme_tables
import result_texts
import torch

from gym_taskdistill import zoo
from gym_taskdistill.dataset.card import Card, Score, StageRecord
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.inner.rules import InnerSGD
from gym_taskdistill.learners import ALPHA_C, MLP, TABLE_1, learner_distribution
from gym_taskdistill.recipes.file import load

ROOT = Path(__file__).parents[2]


def positional(*values: Any) -> Score:
    return Score(**dict(zip(Score.model_fields, values, strict=False)))


def score(learners: str, mean: float, deterministic: bool = False, seed: int = 7) -> Score:
    return positional(learners, deterministic, 100, 100, seed, "CartPoleND-v0", mean, mean / 10, mean - 1)


def dataset(n: int, variant: str, k: int, scores: tuple[Score, ...] = (), **changes: Any) -> DistilledDataset:
    card = Card(
        env_id="CartPoleND-v0",
        env_kwargs={"n": n},
        observation_space={"type": "Box", "shape": [4 * n], "dtype": "float32"},
        action_space={"type": "Discrete", "n": 2 * n},
        learners=changes.pop("learners", ALPHA_C).spec(),
        variant=variant,
        recipe=changes.pop("recipe", {}),
        seed=changes.pop("seed", None),
        num_timesteps=1_310_720,
        wall_clock_s=90.0,
        scores=scores,
    )
    return DistilledDataset(
        torch.ones(k, 4 * n), torch.ones(k, 2 * n), changes.pop("rule", InnerSGD(lr=1.0)), card, **changes
    )


def pendulum() -> DistilledDataset:
    card = Card(
        env_id="Pendulum-v1",
        observation_space={"type": "Box", "shape": [3], "dtype": "float32"},
        action_space={"type": "Box", "shape": [1], "dtype": "float32"},
        learners=ALPHA_C.spec(),
        variant="k64",
        num_timesteps=2_000_000,
        wall_clock_s=600.0,
        scores=(
            positional("alpha_c", False, 1000, 1, 3, "Pendulum-v1", -200.25, 50.0, -900.0),
            positional("alpha_c", True, 1000, 1, 3, "Pendulum-v1", -150.0, 40.0, -800.0),
        ),
    )
    return DistilledDataset(torch.ones(64, 3), torch.ones(64, 1), InnerSGD(lr=1.0), card)


def mujoco(
    env_id: str, mean: float, *, deterministic: float | None = None, inner_steps: int = 1
) -> DistilledDataset:
    scores = [positional("alpha_c", False, 1000, 1, 3, env_id, mean, abs(mean) / 10, mean - 1)]
    if deterministic is not None:
        scores.append(positional("alpha_c", True, 1000, 1, 3, env_id, deterministic, 40.0, deterministic - 1))
    card = Card(
        env_id=env_id,
        observation_space={"type": "Box", "shape": [5], "dtype": "float64"},
        action_space={"type": "Box", "shape": [2], "dtype": "float32"},
        learners=ALPHA_C.spec(),
        variant="one-step" if inner_steps == 1 else "few-step",
        default=inner_steps == 1,
        num_timesteps=6_000_000,
        wall_clock_s=5400.0,
        scores=tuple(scores),
    )
    return DistilledDataset(torch.ones(64, 5), torch.ones(64, 2), InnerSGD(lr=1.0, steps=inner_steps), card)


ALL = (
    dataset(
        2,
        "universal-ten-steps",
        64,
        (score("universal", 350.0),),
        learners=learner_distribution("universal"),
        rule=InnerSGD(lr=0.3456, steps=5),
        recipe={
            **load("CartPoleND-v0/n=2,universal-ten-steps").to_dict(),
            "warm_start": "/home/someone/zoo/CartPoleND-v0/n=2,k_min/dataset.safetensors",
        },
        seed=4,
    ),
    dataset(2, "k_min", 3, (score("alpha_c", 495.0), score("alpha_c", 500.0, True)), seed=3),
    dataset(1, "k_min", 2, tuple(score(name, 10.0 * i) for i, name in enumerate(TABLE_1, 1))),
    dataset(7, "k_min", 8, (score("alpha_c", 321.0),)),
    pendulum(),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "zoo"
    for one in ALL:
        zoo.save(one, root)
    return root


@pytest.fixture
def controls(tmp_path: Path) -> Path:
    folder = tmp_path / "controls"
    folder.mkdir()
    dataset(2, "control", 2, (score("alpha_c", 44.0),)).save(folder / "n=2,k=2")
    return folder


def table(page: str, heading: str) -> list[list[str]]:
    """The rows of the first table under a heading."""
    lines = page[page.index(f"\n{heading}\n") :].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def rows_of(page: str, heading: str, *start: str) -> list[list[str]]:
    return [row[len(start) :] for row in table(page, heading) if row[: len(start)] == [*start]]


TABLE = "## N-dimensional cart-pole: Table 1 side by side"


def test_table_1(root: Path) -> None:
    page = make_results.build(root)
    assert rows_of(page, TABLE, "1D", "ours, `k_min` *legacy*: k = 2, 1 inner step") == [
        ["stochastic", *(f"{10.0 * i} ± {1.0 * i}" for i in range(1, 7)), "100 × 100"]
    ]
    empty = ["–"] * 5
    assert rows_of(page, TABLE, "2D", "ours, `k_min` *legacy*: k = 3, 1 inner step") == [
        ["stochastic", "495.0 ± 49.5", *empty, "100 × 100"],
        ["deterministic", "500.0 ± 50.0", *empty, "100 × 100"],
    ]
    assert rows_of(page, TABLE, "2D", "paper, k = 3")[0][1] == "365 ± 31.9"
    # By task, the paper's rows first.
    assert [row[:2] for row in table(page, TABLE) if row[0] == "2D"] == [
        ["2D", "paper, k = 3"],
        ["2D", "paper, k = 512"],
        ["2D", "ours, `k_min` *legacy*: k = 3, 1 inner step"],
        ["2D", "ours, `k_min` *legacy*: k = 3, 1 inner step"],
        ["2D", "ours, `universal-ten-steps` *legacy*: k = 64, 5 inner steps"],
    ]


def test_the_paper_has_ten_rows_of_six(tmp_path: Path) -> None:
    rows = table(make_results.build(tmp_path), TABLE)[2:]
    assert len(rows) == 10
    for i, row in enumerate(rows):
        n = i // 2 + 1
        assert row[0] == f"{n}D" and row[1] == f"paper, k = {512 if i % 2 else n + 1}"
        assert len(row) == 10
    assert "### Cost" not in make_results.build(tmp_path)


def test_minimum_and_cost(root: Path) -> None:
    page = make_results.build(root)
    label = "ours, `k_min` *legacy*: k = 3, 1 inner step"
    assert [row[:2] for row in rows_of(page, "### The worst agent", "2D", label)] == [
        ["stochastic", "494.0"],
        ["deterministic", "499.0"],
    ]
    link = "[`CartPoleND-v0/n=2,{0}`](../zoo/CartPoleND-v0/n=2,{0}/dataset.json)"
    few, steps = f"{link.format('universal-ten-steps')} *legacy*", "1,310,720"
    assert rows_of(page, "### Cost", few) == [["`universal`", steps, "1.5 min", "4", "64", "5", "0.3456"]]
    assert rows_of(page, "### Cost", f"{link.format('k_min')} *legacy*")[0][3] == "3"


def test_other_tasks(root: Path) -> None:
    page = make_results.build(root)
    link = "[`{}`](../zoo/{}/dataset.json)"
    assert table(page, "## Other tasks")[2:] == [
        [
            "CartPoleND-v0 n=7",
            link.format("k_min", "CartPoleND-v0/n=7,k_min") + " *legacy*",
            *("8", "321.0 ± 32.1", "320.0", "–", "100 × 100", "1,310,720", "1.5 min"),
        ],
        [
            "Pendulum-v1",
            link.format("k64", "Pendulum-v1/k64") + " *legacy*",
            *("64", "-200.2 ± 50.0", "-900.0", "-150.0 ± 40.0", "1000 × 1", "2,000,000"),
            "10.0 min",
        ],
    ]


MUJOCO = (
    mujoco("Hopper-v5", 3000.0),
    mujoco("Ant-v5", 4000.0),
    mujoco("Swimmer-v4", 120.0),
    mujoco("Hopper-v4", 2500.0, deterministic=2750.5),
    mujoco("Hopper-v4", 3100.0, inner_steps=10),
    mujoco("HumanoidStandup-v4", 123_456.78, deterministic=9999.5),
)
NO_RL = ("–", "–")
MUJOCO_TABLE = "## MuJoCo: Table 4 side by side"
COSTS = "## What an agent costs: Table 3 for our tasks"
PAPER_TASKS = (
    *("Ant-v4", "HalfCheetah-v4", "Hopper-v4", "Humanoid-v4", "HumanoidStandup-v4"),
    *("InvertedDoublePendulum-v4", "Reacher-v4", "Walker2d-v4"),
)


@pytest.fixture
def mujoco_page(tmp_path: Path) -> str:
    for one in (*MUJOCO, pendulum()):
        zoo.save(one, tmp_path / "mujoco")
    return make_results.build(tmp_path / "mujoco", references=tmp_path / "none")


def mujoco_link(name: str, variant: str) -> str:
    return f"[`{variant}`](../zoo/{name}/{variant}/dataset.json) *legacy*"


def test_mujoco_beside_references(tmp_path: Path) -> None:
    zoo.save(mujoco("Hopper-v4", 2500.0), tmp_path / "zoo")
    (tmp_path / "references").mkdir()
    for seed, mean in ((0, 1000.0), (1, 3000.0)):
        result = {"mean": mean, "num_timesteps": 2_000_000}
        (tmp_path / "references" / f"Hopper-v4,ppmo,seed={seed}.json").write_text(json.dumps(result))
    page = make_results.build(tmp_path / "zoo", references=tmp_path / "references")
    head, *_ = rows = table(page, MUJOCO_TABLE)
    (hopper,) = (dict(zip(head, row, strict=True)) for row in rows if row[0] == "Hopper-v4")
    assert (hopper["our PPO"], hopper["SB3's PPO"]) == ("2000.0 (2 seeds, 2.0 M steps)", "–")


def test_what_an_agent_costs(tmp_path: Path) -> None:
    recipe = {"n_envs": 64, "total_timesteps": 100_000, "ppmo": {"n_steps": 128}}
    hopper = mujoco("Hopper-v4", 2500.0)
    zoo.save(hopper.replace(card=hopper.card.replace(recipe=recipe)), tmp_path / "zoo")
    zoo.save(mujoco("Ant-v4", 2500.0), tmp_path / "zoo")  # not timed
    folder = tmp_path / "references"
    folder.mkdir()
    ppo = {"mean": 1000.0, "num_timesteps": 90_000, "wall_clock_s": 600.0}
    (folder / "Hopper-v4,ppmo,seed=0.json").write_text(json.dumps(ppo))
    assert COSTS not in make_results.build(tmp_path / "zoo", references=folder)
    shot = {"k": 64, "inner_steps": 1, "seconds": 0.0012}
    (folder / "Hopper-v4,k-shot.json").write_text(json.dumps(shot))
    _, _, *rows = table(make_results.build(tmp_path / "zoo", references=folder), COSTS)
    # 100,000 steps in rollouts of 8192; 5400 s of distillation are those of ten agents by PPO.
    assert rows == [
        ["Hopper-v4", "PPO on the env", "46154 ms", "13", "106,496", "10.0 min", "–"],
        ["Hopper-v4", "distilling", "415385 ms", "13", "106,496", "90.0 min", "–"],
        ["Hopper-v4", "64-shot on the rows", "1.2 ms", "1", "64", "1.2 ms", "10 agents"],
    ]


def test_the_readmes_mujoco_table(tmp_path: Path) -> None:
    for one in MUJOCO:
        zoo.save(one, tmp_path / "zoo")
    head, _, *rows = table("\nx\n" + readme_tables.build_mujoco_summary(tmp_path / "zoo"), "x")
    by_task = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}
    assert list(by_task) == [*PAPER_TASKS, "Swimmer-v4"]
    assert by_task["Hopper-v4"]["paper, distilled"] == "2168 ± 302"
    assert by_task["Hopper-v4"]["ours, one step"] == "2500.0 ± 250.0 ᴸ"
    assert by_task["Ant-v4"]["ours, one step"] == "–"


def test_learners_that_are_not_the_papers_are_named(tmp_path: Path) -> None:
    wide = MLP(width=256)
    hopper = mujoco("Hopper-v4", 2500.0)
    scores = (hopper.card.scores[0].replace(learners=str(wide)),)
    zoo.save(hopper.replace(card=hopper.card.replace(learners=wide.spec(), scores=scores)), tmp_path / "zoo")
    (row,) = (r for r in table(make_results.build(tmp_path / "zoo"), MUJOCO_TABLE) if r[0] == "Hopper-v4")
    assert row[1].endswith(f"k = 64, 1 inner step, {wide}")


def test_mujoco_columns_and_order_of_the_tasks(mujoco_page: str) -> None:
    head, _, *rows = table(mujoco_page, MUJOCO_TABLE)
    assert head == [
        *("task", "dataset", "paper, random", "paper, RL", "paper, distilled"),
        *("our PPO", "SB3's PPO", "ours, stochastic", "ours, minimum", "ours, deterministic"),
        *("agents × episodes", "env steps", "wall-clock"),
    ]
    assert all(len(row) == len(head) for row in rows)
    tasks = list(dict.fromkeys(row[0] for row in rows))
    assert tasks == [*PAPER_TASKS, "Swimmer-v4", "Ant-v5", "Hopper-v5"]


def test_mujoco_beside_the_paper_by_inner_steps(mujoco_page: str) -> None:
    paper = ["21 ± 23", "1441 ± 532", "2168 ± 302"]
    cost = ["1000 × 1", "6,000,000", "90.0 min"]
    assert rows_of(mujoco_page, MUJOCO_TABLE, "Hopper-v4") == [
        [
            f"{mujoco_link('Hopper-v4', 'one-step')}: k = 64, 1 inner step",
            *(*paper, *NO_RL, "2500.0 ± 250.0", "2499.0", "2750.5 ± 40.0", *cost),
        ],
        [
            f"{mujoco_link('Hopper-v4', 'few-step')}: k = 64, 10 inner steps",
            *(*paper, *NO_RL, "3100.0 ± 310.0", "3099.0", "–", *cost),
        ],
    ]


def test_mujoco_large_scores_have_thousands_separators(mujoco_page: str) -> None:
    [row] = rows_of(mujoco_page, MUJOCO_TABLE, "HumanoidStandup-v4")
    assert row[1:9] == [
        *("34,034 ± 3028", "104,950 ± 53,667", "138,478 ± 6037", *NO_RL),
        *("123,456.8 ± 12,345.7", "123,455.8", "9999.5 ± 40.0"),
    ]


def test_mujoco_task_of_the_paper_without_an_entry(mujoco_page: str) -> None:
    paper = ["-42.95 ± 4.05", "-5.63 ± 0.22", "-7.78 ± 0.57"]
    assert rows_of(mujoco_page, MUJOCO_TABLE, "Reacher-v4") == [["–", *paper, *NO_RL, *["–"] * 6]]


@pytest.mark.parametrize(
    ("name", "score"), [("Swimmer-v4", ("120.0 ± 12.0", "119.0")), ("Ant-v5", ("4000.0 ± 400.0", "3999.0"))]
)
def test_mujoco_task_that_the_paper_does_not_have(
    name: str, score: tuple[str, str], mujoco_page: str
) -> None:
    assert rows_of(mujoco_page, MUJOCO_TABLE, name) == [
        [
            f"{mujoco_link(name, 'one-step')}: k = 64, 1 inner step",
            *("–", "–", "–", *NO_RL, *score, "–", "1000 × 1", "6,000,000", "90.0 min"),
        ]
    ]


def test_mujoco_is_not_among_the_other_tasks(mujoco_page: str) -> None:
    assert [row[0] for row in table(mujoco_page, "## Other tasks")[2:]] == ["Pendulum-v1"]


def test_without_mujoco_there_is_no_section(root: Path) -> None:
    assert MUJOCO_TABLE not in make_results.build(root)


def atari(game: str, mean: float, level: int = 0, ram: bool = False) -> DistilledDataset:
    env_id = f"{game}NoFrameskip-v4"
    shape = (128,) if ram else (4, 84, 84)
    card = Card(
        env_id=env_id,
        env_kwargs={"obs_type": "ram"} if ram else {},
        observation_space={"type": "Box", "shape": list(shape), "dtype": "uint8"},
        action_space={"type": "Discrete", "n": 6},
        learners=learner_distribution("alpha_c" if ram else "alpha_a").spec(),
        variant="one-step" if ram else f"level-{level}",
        num_timesteps=500_000,
        wall_clock_s=60.0,
        scores=(positional("alpha_c" if ram else "alpha_a", False, 100, 1, 3, env_id, mean, 1.0, mean - 1),),
    )
    encoder = {"0.weight": torch.ones(1)} if level else {}
    return DistilledDataset(
        torch.ones(4, *shape), torch.ones(4, 6), InnerSGD(lr=1.0), card, encoder=encoder, encoder_layers=level
    )


def test_atari_beside_the_paper_by_level(tmp_path: Path) -> None:
    for one in (atari("Pong", 3.0, ram=True), atari("Pong", 1.0, 3), atari("Pong", 20.0, 4)):
        zoo.save(one, tmp_path)
    references = tmp_path / "references"
    references.mkdir()
    for action, mean in ((0, -21.0), (3, -20.5)):
        result = {"action": action, "mean": mean, "std": 0.5}
        (references / f"PongNoFrameskip-v4,one-action={action},seed=0.json").write_text(json.dumps(result))
    (references / "PongNoFrameskip-v4,ppmo,seed=0.json").write_text('{"mean": 2, "num_timesteps": 1000000}')
    page = make_results.build(tmp_path, references=references)
    head, _, *rows = table(page, "## Atari: Table 2 side by side")
    assert head[2:8] == [
        "level",
        "paper, RL",
        "paper, distilled",
        "our PPO",
        "one action",
        "ours, stochastic",
    ]
    ppo = "2.00 (1 seed, 1.0 M steps)"
    one = "-20.5 ± 0.5 (action 3)"
    assert [row[0:1] + row[2:9] for row in rows] == [
        ["PongNoFrameskip-v4", "l = 4", "19.7 ± 1.2", "21.0 ± 0.01", ppo, one, "20.0 ± 1.0", "19.0"],
        ["PongNoFrameskip-v4", "l = 3", "19.7 ± 1.2", "5.6*† ± 6.4", ppo, one, "1.00 ± 1.00", "0.0"],
        ["PongNoFrameskip-v4 obs_type=ram", "full", "–", "–", "–", one, "3.00 ± 1.00", "2.0"],
    ]
    assert "## Other tasks" not in page


def test_the_readmes_atari_table(tmp_path: Path) -> None:
    for one in (atari("Pong", 3.0, ram=True), atari("Pong", 1.0, 3), atari("Centipede", 9000.0)):
        zoo.save(one, tmp_path)
    head, _, *rows = table("\nx\n" + readme_tables.build_atari_summary(tmp_path), "x")
    assert len(head) == len(rows[0])
    assert rows == [
        ["Centipede", "full", "8011 ± 1049", "8042 ± 492", "9000.0 ± 1.0 ᴸ", "8999.0", "100 × 1"],
        ["Pong", "l = 3", "19.7 ± 1.2", "5.6*† ± 6.4", "1.00 ± 1.00 ᴸ", "0.0", "100 × 1"],
        ["Pong, RAM", "full", "–", "–", "3.00 ± 1.00 ᴸ", "2.0", "100 × 1"],
    ]


def test_control(root: Path, controls: Path, tmp_path: Path) -> None:
    heading = "## Control: fewer rows than k_min"
    page = make_results.build(root, controls)
    assert table(page, heading)[2:] == [
        ["CartPoleND-v0 n=2", label, k, "3", *figures, "100 × 100", "1,310,720"]
        for label, k, *figures in (
            ("control", "2", "44.0 ± 4.4", "43.0"),
            ("`k_min`", "3", "495.0 ± 49.5", "494.0"),
        )
    ]
    without = make_results.build(root, tmp_path / "nowhere")
    assert heading not in without


def test_an_entry_with_its_stages_on_record_is_not_legacy(root: Path, tmp_path: Path) -> None:
    assert result_texts.LEGACY_TEXT in make_results.build(root)
    stages = tuple(
        StageRecord(
            kind=kind,
            settings={},
            task="CartPoleND-v0 n=2",
            seed=0,
            env_steps=500_000,
            seconds=60.0,
            inputs={},
            output="0" * 64,
            versions={},
        )
        for kind in ("ppmo", "imitate")
    )
    one = dataset(2, "k_min", 3, (score("alpha_c", 495.0),))
    zoo.save(one.replace(card=one.card.replace(lineage=stages)), tmp_path / "new")
    page = make_results.build(tmp_path / "new")
    assert "legacy" not in page
    link = "[`CartPoleND-v0/n=2,k_min`](../zoo/CartPoleND-v0/n=2,k_min/dataset.json)"
    assert rows_of(page, "### Cost", link)[0][1:3] == ["1,000,000", "2.0 min"]  # of all its stages


def test_same_zoo_same_bytes(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for one in MUJOCO:
        zoo.save(one, root)
    for one in reversed((*ALL, *MUJOCO)):
        zoo.save(one, other)
    assert make_results.build(root) == make_results.build(other)


@pytest.mark.slow
def test_the_page_is_up_to_date() -> None:
    page = ROOT / "docs" / "results.md"
    command = "run: python scripts/make_results.py"
    assert page.is_file(), command
    assert page.read_text(encoding="utf-8") == make_results.build(), command


@pytest.mark.slow
def test_the_readme_is_up_to_date() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == readme_tables.with_summaries(readme), "run: python scripts/make_results.py"
    for head in ("ours, k_min", "ours, one step", "agents × games"):
        assert head in readme
