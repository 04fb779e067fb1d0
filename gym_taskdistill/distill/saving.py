"""SB3's `save` and `load`, for algorithms that distil, without the code that SB3's files hold."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, TypeVar

import gymnasium as gym
import torch
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import get_system_info
from stable_baselines3.common.vec_env import VecEnv

from gym_taskdistill.dataset.fit import same_space, space_text
from gym_taskdistill.dataset.spaces import space_from_dict, space_to_dict
from gym_taskdistill.distill import checkpoint, distributed, model_file
from gym_taskdistill.distill.model_file import PathOrFile, SavedModel
from gym_taskdistill.distill.segments import SegmentedAlgorithm
from gym_taskdistill.errors import TaskDistillError, did_you_mean
from gym_taskdistill.learners.named import code_of
from gym_taskdistill.tasks import EnvArg, as_task
from gym_taskdistill.tasks.spaces import flat_action_space, flat_observation_space
from gym_taskdistill.trust import allow

#: Arguments that a saved model does not keep.
_NO_SETTINGS = ("self", "args", "kwargs", "env", "device", "_init_setup_model")

Self = TypeVar("Self", bound="SavedAlgorithm")


class SavedAlgorithm(SegmentedAlgorithm):
    """An algorithm whose settings are attributes of the same names, so that a file can hold them."""

    def settings(self) -> dict[str, Any]:
        """Return the arguments that this object was made with, as they are now, but for env and device."""
        own = vars(self)
        return {name: own[name if name in own else f"_{name}"] for name in self._setting_names()}

    @classmethod
    def _setting_names(cls) -> list[str]:
        classes = cls.__mro__[: cls.__mro__.index(SavedAlgorithm)]
        names = [name for c in classes for name in inspect.signature(c).parameters]
        return [name for name in dict.fromkeys(names) if name not in _NO_SETTINGS]

    def save(
        self, path: PathOrFile, exclude: Iterable[str] | None = None, include: Iterable[str] | None = None
    ) -> None:
        """Save the model as SB3's algorithms do, but without their pickled code.

        The run goes on as if nothing had been saved. Schedules that are functions of one's own cannot be
        written: a loaded model predicts without them, and asks for them before it learns on.

        Args:
            path: File to write, ``.zip`` being added where it has no suffix; or an open binary file.
            exclude: Names of settings to leave out.
            include: Names of settings that are written even if they are excluded.

        Raises:
            TaskDistillError: The file cannot be written, or something is included that is no setting.
        """
        settings = model_file.without(self.settings(), exclude or (), include or ())
        if distributed.rank() == 0:
            saved = {
                "settings": model_file.plain_settings(settings),
                "observation_space": space_to_dict(self.own_spaces[0], bounds=not self.loop.is_image),
                "action_space": space_to_dict(self.own_spaces[1], bounds=True),
                "n_envs": self.n_envs,
                "drawn_from": self.loop.drawn_from,
                "state": self.state(),
            }
            model_file.write(path, saved)

    @classmethod
    def load(
        cls: type[Self],
        path: PathOrFile,
        env: GymEnv | EnvArg | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        *,
        trust: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Load a model that `save` wrote: it predicts as it did, and learns on in fresh episodes.

        Args:
            path: The file; its ``.zip`` may be left out.
            env: Env to learn on with, or an id, a `Task` or a function that makes one; not needed to predict.
                The statistics of a `VecNormalize` are set to those that the model was saved with. Where it
                has another number of envs than the model had, ``n_learners`` and ``batch_size`` take their
                defaults, unless they are given.
            device: Where to compute.
            custom_objects: Settings in the place of the saved ones, such as a schedule; other names are
                ignored, as SB3 does.
            print_system_info: Print the versions of the libraries.
            force_reset: Only for SB3's signature: simulators are not saved, so that envs always start anew.
            trust: Run the functions that the file names as what makes its networks; see
                `gym_taskdistill.trust`.
            **kwargs: Settings in the place of the saved ones.

        Raises:
            TaskDistillError: The file cannot be read, names code that is not trusted, or does not fit the
                env, or there is no such setting.
        """
        if print_system_info:
            get_system_info()
        saved, names = model_file.read(path), cls._setting_names()
        for name in kwargs:
            if name not in names:
                raise TaskDistillError(f'{cls.__name__} has no setting "{name}".{did_you_mean(name, names)}')
        given = {name: value for name, value in (custom_objects or {}).items() if name in names} | kwargs
        task = None
        if env is not None and not isinstance(env, gym.Env | VecEnv):
            task = as_task(env)
            env = task.make_vec_env(saved.n_envs, training=True)
        made = None if env is None else cls._wrap_env(env)
        n_envs = saved.n_envs if made is None else made.num_envs
        settings = saved.arguments(given, n_envs, names)
        if trust:
            allow(*(name for networks in ("learners", "critic") for name in code_of(settings.get(networks))))
        model = cls(env=made, device=device, _init_setup_model=False, **settings)
        if task is not None:
            model.task = task
        model._take_spaces(saved)
        model._setup_model()
        with checkpoint.refusing_misfits(saved.what):
            model.loop.redraw(saved.drawn_from)
            model.load_state(saved.state)
            segment = int(saved.state["segment"])
        model._seed_segment(segment)
        return model

    def _take_spaces(self, saved: SavedModel) -> None:
        """Take over what the env is like from a saved model; an env that is there already has to fit."""
        if self.env is None:
            self.n_envs = saved.n_envs
            observations, actions = (space_from_dict(saved.spaces[kind]) for kind in model_file.SPACES)
            self.own_spaces = observations, actions
            self.observation_space = flat_observation_space(observations)
            self.action_space = flat_action_space(actions)
            return
        for kind, space in zip(model_file.SPACES, self.own_spaces, strict=True):
            if not same_space(saved.spaces[kind], space):
                raise TaskDistillError(
                    f"{saved.what} has an {kind.replace('_', ' ')} {space_text(saved.spaces[kind])}, but the "
                    f"env has {space_text(space)}."
                )

    def set_parameters(
        self,
        load_path_or_dict: str | dict[str, Any],
        exact_match: bool = True,
        device: torch.device | str = "auto",
    ) -> None:
        """Set what is learned from a file of `save`, or from what `get_parameters` returned; see SB3."""
        if isinstance(load_path_or_dict, dict):
            super().set_parameters(load_path_or_dict, exact_match, device)
            return
        saved = model_file.read(load_path_or_dict)
        with checkpoint.refusing_misfits(saved.what):
            self.loop.load_state(saved.state["loop"])
            self.policy.critic.load_state_dict(saved.state["critic"])
