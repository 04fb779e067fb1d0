"""Sharing datasets on the Hugging Face Hub: pushing one there, and pulling one into a zoo."""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import yaml

from gym_taskdistill import hub, trust, zoo
from gym_taskdistill.dataset.card import Card, Score
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.file import DATASET_FILE
from gym_taskdistill.errors import TaskDistillError, ZooError
from gym_taskdistill.hub import Address
from gym_taskdistill.paths import user_zoo
from gym_taskdistill.policies.policy import DistilledPolicy
from gym_taskdistill.uses.videos import MAX_GIF_FPS, draw_without_display, play, recording
from gym_taskdistill.zoo.entry import entry_folder

#: Names of the files beside the dataset in a repository.
MODEL_CARD, GIF = "README.md", "agent.gif"

#: Pictures of a GIF, so that it stays within some megabytes.
MAX_FRAMES = 300


def push(dataset: DistilledDataset, repo: str, *, private: bool = False, gif: bool | None = None) -> str:
    """Share a dataset on the Hub, in a repository that is made if need be.

    The repository holds the dataset, its card as JSON, a model card for readers and the Hub's search, and a
    GIF of a fresh agent.

    Args:
        dataset: The dataset. Its card needs what the zoo asks for: a task that anyone can make, a variant.
        repo: ``user/name``.
        private: Make the repository private, if it is made now.
        gif: Record an agent. ``None`` does if the extra ``video`` is installed and no code would have to be
            trusted.

    Returns:
        The web address of the repository.

    Raises:
        TaskDistillError: The dataset cannot be shared, its agent cannot be recorded, or the Hub refuses.
    """
    address = Address.parse(repo)
    if address.revision is not None:
        raise TaskDistillError(f"A dataset is pushed to user/name, without the revision of {address}.")
    entry_folder(dataset.card)  # refuses what no zoo could take
    api = hub.library().HfApi()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset.save(folder / DATASET_FILE)
        if _can_record(dataset.card) if gif is None else gif:
            record(dataset, folder / GIF)
        text = model_card(dataset, address.repo, (folder / GIF).is_file())
        (folder / MODEL_CARD).write_text(text, encoding="utf-8")
        try:
            api.create_repo(repo_id=address.repo, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=address.repo, folder_path=str(folder), commit_message=f"Add {_name(dataset.card)}"
            )
        except Exception as error:  # of the Hub, or of its transport
            raise hub.refused(f"{_name(dataset.card)} cannot be pushed to {address}", error) from None
    return f"https://huggingface.co/{address.repo}"


def _can_record(card: Card) -> bool:
    has_video = importlib.util.find_spec("imageio_ffmpeg") is not None
    return has_video and all(map(trust.is_allowed, card.code))


def record(dataset: DistilledDataset, path: Path) -> None:
    """Record the first `MAX_FRAMES` steps of a fresh agent's episode as a GIF.

    Args:
        dataset: What the agent is trained on.
        path: The file.

    Raises:
        TaskDistillError: The environment cannot be made or drawn.
    """
    draw_without_display()
    policy = DistilledPolicy(dataset, seed=0)
    try:
        with contextlib.closing(dataset.task.make_env("rgb_array")) as env:
            fps = min(round(env.metadata.get("render_fps") or 30), MAX_GIF_FPS)
            with recording(path, fps) as on_frame:
                play(env, policy, seed=0, on_frame=on_frame, max_steps=MAX_FRAMES)
    except gym.error.Error as error:
        raise TaskDistillError(f"{dataset.card.task} cannot be drawn here: {error}") from None


def pull(repo: str, *, root: Path | None = None, force: bool = False) -> Path:
    """Put a dataset of the Hub into a zoo, under the name that its card tells; no code comes along.

    It becomes the default dataset of its task only where there is no other.

    Args:
        repo: ``user/name``, or ``user/name@revision``.
        root: Folder of another zoo; None is the user's own.
        force: Take the place of an entry of the same name.

    Returns:
        The file of the entry; of an equal dataset that is there already, that one's.

    Raises:
        ZooError: There is another dataset of that name, or the card's names cannot be those of an entry.
        DatasetError: The file is damaged, or no dataset.
        TaskDistillError: The dataset cannot be fetched.
    """
    dataset = DistilledDataset.load(str(Address.parse(repo)))
    dataset = dataset.replace(card=dataset.card.replace(default=False))
    folder = entry_folder(dataset.card)  # refuses names that lead elsewhere
    home = user_zoo() if root is None else Path(root)
    there = [entry for entry in zoo.entries(dataset.card.env_id, root=root) if _folder(entry) == folder]
    if there and there[0].load().digest == dataset.digest:
        return there[0].path
    if not force and (there or (home / folder / DATASET_FILE).exists()):
        raise ZooError(
            f"The zoo has another {_name(dataset.card)} already, in "
            f'"{there[0].path.parent if there else home / folder}"; use --force to take its place, or '
            f"{hub.SCHEME}{repo.removeprefix(hub.SCHEME)} without pulling it."
        )
    return zoo.add(dataset, root=root, force=force)


def _folder(entry: zoo.ZooEntry) -> Path:
    return Path(*entry.path.parts[-3:-1])


def _name(card: Card) -> str:
    return entry_folder(card).as_posix().replace("--", "/")


def model_card(dataset: DistilledDataset, repo: str, has_gif: bool = False) -> str:
    """Describe a dataset for readers of the Hub and for its search.

    Args:
        dataset: The dataset.
        repo: Where it will lie, ``user/name``.
        has_gif: Whether a GIF of an agent lies beside it.

    Returns:
        Markdown, with what the Hub's search wants to know as YAML in front.
    """
    card = dataset.card
    about = yaml.safe_dump(_front_matter(card), sort_keys=False, allow_unicode=True)
    picture = f"![A fresh agent that was trained on these rows]({GIF})\n\n" if has_gif else ""
    numbered = enumerate(card.lineage, 1)
    stages = [f"{i}. {_code(stage.kind)}, {stage.env_steps:,} env steps" for i, stage in numbered]
    made = "\n".join(stages) or "Its card does not tell its stages."
    return (
        f"---\n{about}---\n\n# {_code(_name(card))}\n\n"
        f"{dataset.k} rows of data that train a fresh network for {_code(card.task)} in "
        f"{_counted(dataset.rule.steps, 'step')}, without the environment. Made with gym-taskdistill.\n\n"
        f"{picture}## Use it\n\n"
        "```python\nfrom gym_taskdistill import DistilledPolicy\n\n"
        f'policy = DistilledPolicy.from_hub("{repo}")\n```\n\n'
        'It takes `pip install "gym-taskdistill[hub]"`. The file is safetensors; reading it runs no code, '
        "and its checksum is verified.\n\n"
        f"## Scores\n\n{_score_table(card.scores)}\n\n"
        f"## How it was made\n\n{made}\n\nDigest: `{dataset.digest}`\n"
    )


def _front_matter(card: Card) -> dict[str, Any]:
    """Return what the Hub's search reads; scores are written as Stable-Baselines3's are."""
    about: dict[str, Any] = {
        "library_name": "gym-taskdistill",
        "pipeline_tag": "reinforcement-learning",
        "tags": ["gym-taskdistill", "reinforcement-learning", "dataset-distillation", _env_name(card)],
    }
    results = [
        {
            "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
            "dataset": {"name": card.task, "type": _env_name(card)},
            "metrics": [
                {
                    "type": "mean_reward",
                    "value": "{} +/- {}".format(*score.figures),
                    "name": f"mean_reward of {score.n_agents} fresh {score.learners} agents",
                    "verified": False,
                }
            ],
        }
        for score in card.scores
        if not score.deterministic
    ]
    return about | {"model-index": [{"name": _name(card), "results": results}]}


def _env_name(card: Card) -> str:
    return card.env_id.rpartition(":")[2]


def _score_table(scores: tuple[Score, ...]) -> str:
    if not scores:
        return "Its card tells of no test."
    rows = [
        "| learners | policy | mean ± std | worst agent | agents × episodes |",
        "| --- | --- " + "| ---: " * 3 + "|",
    ]
    for score in scores:
        mean, std, worst = score.figures
        policy = "deterministic" if score.deterministic else "stochastic"
        protocol = f"{score.n_agents} × {score.n_episodes}"
        rows.append(f"| {_code(score.learners)} | {policy} | {mean} ± {std} | {worst} | {protocol} |")
    return (
        "\n".join(rows)
        + "\n\nMean return of fresh agents over full episodes with raw rewards; ± is over agents."
    )


def _code(text: str) -> str:
    """Return text of a card as code, so that nothing in it is taken for Markdown."""
    plain = "".join(c if c.isprintable() and c not in "`|" else " " for c in text)
    return f"`{plain}`"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
