"""What takes the place of Gymnasium's and SB3's classes in their own tests; see ``peer_tests.py``.

Each takes the arguments of the class that it stands for and makes ours. Nothing is added to ours but that
`made` counts them, so that the tests that meet none of ours can be told from those that do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

import gymnasium as gym
import stable_baselines3 as sb3
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.vec_env import VecEnv

from gym_taskdistill.distill.ppmo import PPMO
from gym_taskdistill.envs import CartPoleNDEnv, CartPoleNDVectorEnv
from gym_taskdistill.learners import MLP
from gym_taskdistill.policies.export import _OWN_POLICY_KWARGS
from gym_taskdistill.policies.policy import DistilledPolicy
from gym_taskdistill.tasks.processes import ProcessVecEnv
from gym_taskdistill.tasks.vec_env import GymnasiumVecEnv

#: How many of ours were made; a list, so that all who import it see one number.
made = [0]

EnvFns = Sequence[Callable[[], gym.Env[Any, Any]]]


def _counting(cls: type[Any]) -> None:
    """Count the objects of a class from now on."""
    original = cls.__init__

    @wraps(original)  # PPMO reads its settings' names from its signature
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        made[0] += 1
        original(self, *args, **kwargs)

    cls.__init__ = init


for _cls in (CartPoleNDEnv, CartPoleNDVectorEnv, GymnasiumVecEnv, ProcessVecEnv, PPMO):
    _counting(_cls)


def is_ours(value: Any) -> bool:
    """Whether a test's parameter is an env of ours, or its registration."""
    spec = value if isinstance(value, EnvSpec) else getattr(value, "spec", None)
    return isinstance(spec, EnvSpec) and spec.id == "CartPoleND-v0"


# -- SB3's vec-envs ----------------------------------------------------------------------------------


class SyncAdapter(GymnasiumVecEnv):
    """In the place of `DummyVecEnv`: Gymnasium's synchronous vector env behind our adapter."""

    def __init__(self, env_fns: EnvFns) -> None:
        super().__init__(SyncVectorEnv(list(env_fns), autoreset_mode=AutoresetMode.SAME_STEP))

    @property
    def envs(self) -> Any:
        """The single envs, where `DummyVecEnv` has them."""
        venv: Any = self.venv.unwrapped
        return venv.envs


class Processes(ProcessVecEnv):
    """In the place of `SubprocVecEnv`: two processes for all columns."""

    def __init__(self, env_fns: EnvFns, start_method: str | None = None) -> None:
        super().__init__(partial(_columns, list(env_fns)), len(env_fns), 2)


def _columns(env_fns: EnvFns, first: int, n_envs: int) -> VecEnv:
    return sb3.common.vec_env.DummyVecEnv(list(env_fns[first : first + n_envs]))


# -- SB3's on-policy algorithms ----------------------------------------------------------------------

_LEARNERS = {"MlpPolicy": "alpha_c", "MultiInputPolicy": "alpha_c", "CnnPolicy": "alpha_a"}


def _learners(policy: str, policy_kwargs: dict[str, Any] | None) -> Any:
    """Return the learner distribution that is meant by a policy's name and its ``net_arch``."""
    widths = (policy_kwargs or {}).get("net_arch")
    if policy == "CnnPolicy" or not isinstance(widths, list):
        return _LEARNERS[policy]
    return MLP(width=widths[0] if widths else 1, depth=len(widths))


class PPMOAsPPO(PPMO):
    """`PPMO` by the arguments of SB3's PPO."""

    usual: dict[str, Any] = {}  # noqa: RUF012
    log_name = "PPO"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        settings = dict(zip(("policy", "env"), args, strict=False)) | kwargs
        if "policy" in settings:
            policy_kwargs = settings.pop("policy_kwargs", None)
            settings["learners"] = _learners(settings.pop("policy"), policy_kwargs)
            # Of an id SB3 makes one env.
            one = {"n_learners": 1} if isinstance(settings["env"], str) else {}
            settings = {"k": 8, **one, **self.usual, **settings}
            if settings.get("clip_range_vf", 0) is None:  # SB3's default, and the only way here
                del settings["clip_range_vf"]
        super().__init__(**settings)

    def learn(self, total_timesteps: int, *args: Any, **kwargs: Any) -> Any:
        """Learn, and log under SB3's name."""
        return super().learn(total_timesteps, *args, **({"tb_log_name": self.log_name} | kwargs))

    @classmethod
    def load(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a model without SB3's settings of its policy."""
        made[0] += 1  # where the file is refused, none is made
        kwargs.pop("policy_kwargs", None)
        return super().load(*args, **kwargs)


class PPMOAsA2C(PPMOAsPPO):
    """`PPMO` by the arguments of SB3's A2C, which is PPO with short rollouts and one pass."""

    usual = {"n_steps": 5, "n_epochs": 1}  # noqa: RUF012
    log_name = "A2C"


class DistilledPPO(sb3.PPO):
    """An agent as `DistilledPolicy.to_sb3` exports it, by the arguments of SB3's PPO."""

    usual: dict[str, Any] = {}  # noqa: RUF012
    log_name = "PPO"

    def __init__(self, policy: Any, env: Any, **kwargs: Any) -> None:
        made[0] += 1
        if not isinstance(policy, str):  # `load` says what the file says
            super().__init__(policy, env, **kwargs)
            return
        given = dict(kwargs.pop("policy_kwargs", None) or {})
        learners, seed = _learners(policy, given), kwargs.get("seed")
        dataset = PPMO(learners, env, k=8, n_steps=8, seed=seed).dataset()
        own = {name: value for name, value in given.items() if name not in _OWN_POLICY_KWARGS}
        settings = {**self.usual, **kwargs, "policy_kwargs": own}
        if "n_steps" in self.usual:  # A2C learns from its whole rollout at once
            settings["batch_size"] = settings["n_steps"]
        model = DistilledPolicy(dataset, seed=seed).to_sb3(env, **settings)
        vars(self).update(vars(model))

    def learn(self, total_timesteps: int, *args: Any, **kwargs: Any) -> Any:
        """Learn, and log under the name of the class that it stands for."""
        return super().learn(total_timesteps, *args, **({"tb_log_name": self.log_name} | kwargs))

    @classmethod
    def load(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a model without settings of its policy that the learner decides."""
        kwargs.pop("policy_kwargs", None)
        return super().load(*args, **kwargs)


class DistilledA2C(DistilledPPO):
    """The same in the place of A2C."""

    usual = {"n_steps": 5, "n_epochs": 1, "normalize_advantage": False}  # noqa: RUF012
    log_name = "A2C"


# SB3 writes its algorithms' names into messages and folders.
DistilledPPO.__name__, DistilledA2C.__name__ = "PPO", "A2C"
