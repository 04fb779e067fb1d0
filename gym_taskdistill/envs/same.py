"""Tasks of this library that are, bit for bit, tasks of Gymnasium under other names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: What a Gymnasium id means here: id, arguments, and Gymnasium's arguments that must be as usual for it.
SAME_TASKS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "CartPole-v1": ("CartPoleND-v0", {"n": 1}, {"sutton_barto_reward": False}),
}


def same_task(env_id: str, env_kwargs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a task's name in this library, or its own if it has no other.

    Args:
        env_id: Gymnasium id, without its module prefix.
        env_kwargs: Keyword arguments of the environment.

    >>> same_task("CartPole-v1", {})
    ('CartPoleND-v0', {'n': 1})
    >>> same_task("CartPole-v1", {"sutton_barto_reward": True})
    ('CartPole-v1', {'sutton_barto_reward': True})
    """
    name, arguments, usual = SAME_TASKS.get(env_id, (env_id, {}, {}))
    if any(env_kwargs.get(key, value) != value for key, value in usual.items()):
        return env_id, dict(env_kwargs)
    return name, {**arguments, **{k: v for k, v in env_kwargs.items() if k not in usual}}
