"""Atari games as single envs, preprocessed as ALE's vector env does it."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.tasks.atari.games import (
    FRAME_RATE,
    FRAME_SKIP,
    MAX_FRAMES,
    NOOP_MAX,
    atari_spec,
    checked_obs_type,
    game_arguments,
    made_spec,
    rom_errors,
)


class AtariEpisode(gym.Wrapper[np.ndarray, int, np.ndarray, int], gym.utils.RecordConstructorArgs):
    """Begin and cut off games as ALE's vector env does.

    A game begins with FIRE, if it has that action, and up to ``noop_max - 1`` frames in all; it is truncated
    ``max_frames`` emulator frames after its first observation.

    Args:
        env: An ``ale_py.AtariEnv`` that shows grey frames or the RAM.
        noop_max: Bound of the random number of frames at the start, 0 or 1 for none but FIRE.
        max_frames: Frames after which the game is truncated.
    """

    def __init__(
        self, env: gym.Env[np.ndarray, int], noop_max: int = NOOP_MAX, max_frames: int = MAX_FRAMES
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, noop_max=noop_max, max_frames=max_frames)
        gym.Wrapper.__init__(self, env)
        self.metadata = {**env.metadata, "render_fps": FRAME_RATE // FRAME_SKIP}
        self.noop_max, self.max_frames = noop_max, max_frames
        game: Any = env.unwrapped
        self._ale = game.ale
        self._has_fire = "FIRE" in game.get_action_meanings()
        self._first_frame = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a game; ``seed`` also determines the number of no-ops."""
        import ale_py

        ale = self._ale
        _, info = self.env.reset(seed=seed, options=options)
        n_frames = int(self.np_random.integers(max(1, self.noop_max)))
        if self._has_fire:
            ale.act(ale_py.Action.FIRE)
            n_frames -= 1
        for _ in range(n_frames):
            ale.act(ale_py.Action.NOOP)
            if ale.game_over():
                ale.reset_game()
        self._first_frame = ale.getEpisodeFrameNumber()
        info |= {
            "lives": ale.lives(),
            "episode_frame_number": self._first_frame,
            "frame_number": ale.getFrameNumber(),
        }
        is_ram = len(self.observation_space.shape or ()) == 1
        return ale.getRAM() if is_ram else ale.getScreenGrayscale(), info

    def step(self, action: int) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the game, and truncate it at the cap."""
        obs, reward, terminated, _, info = self.env.step(action)
        is_late = info["episode_frame_number"] - self._first_frame >= self.max_frames
        return obs, reward, terminated, is_late and not terminated, info


class RAMBits(gym.ObservationWrapper[np.ndarray, int, np.ndarray], gym.utils.RecordConstructorArgs):
    """Show the bits of a console's bytes, the highest first, each an observation of its own.

    Games keep flags and small pictures in single bits, such as which invaders are left, which no layer of
    a network reads out of a byte's number.

    Args:
        env: An env that shows bytes, shape ``(n,)``; its observations become uint8 of 0 and 1, ``(8 n,)``.

    >>> RAMBits(make_atari_env("PongNoFrameskip-v4", obs_type="ram")).observation_space
    Box(0, 1, (1024,), uint8)
    """

    def __init__(self, env: gym.Env[np.ndarray, int]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        assert env.observation_space.shape is not None
        self.observation_space = gym.spaces.Box(0, 1, (8 * env.observation_space.shape[0],), np.uint8)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Return the bits of the bytes."""
        return np.unpackbits(observation)


def make_atari_env(
    env_id: str,
    obs_type: str = "pixels",
    render_mode: Literal["human", "rgb_array"] | None = None,
    **kwargs: Any,
) -> gym.Env[Any, Any]:
    """Make a single Atari game as `Task` and its vector env have it.

    Each action is repeated for 4 frames; rewards are raw, and episodes whole games. Games start with FIRE if
    they have that action and up to 29 random frames, and are truncated after 108 000 frames. The actions are
    the game's minimal set.

    Args:
        env_id: ``"PongNoFrameskip-v4"``, or ``"ALE/Pong-v5"`` with its sticky actions of probability 0.25.
            The frame skip of the id is replaced by ours.
        obs_type: ``"pixels"``: the maximum of the last two frames, grey, 84x84, and four of those, the newest
            last, zeros before the first: uint8, shape ``(4, 84, 84)``. ``"ram"``: the console's 128 bytes:
            uint8, shape ``(128,)``. ``"bits"``: these bytes' bits, see `RAMBits`: uint8, shape ``(1024,)``.
        render_mode: ``"human"``, ``"rgb_array"`` or nothing.
        **kwargs: ``repeat_action_probability``, ``full_action_space``, ``max_num_frames_per_episode``, and
            ``noop_max`` (30), in place of those above.

    Returns:
        The env; ``info["lives"]`` tells the lives left.

    Raises:
        TaskDistillError: There is no such game or argument, or OpenCV is missing, which pixels need.

    >>> make_atari_env("PongNoFrameskip-v4", obs_type="ram").observation_space
    Box(0, 255, (128,), uint8)
    """
    from ale_py.env import AtariEnv

    spec = atari_spec(env_id)
    shows_memory = checked_obs_type(obs_type) != "pixels"
    arguments = game_arguments(spec, kwargs)
    noop_max, max_frames = arguments.pop("noop_max"), arguments.pop("max_num_frames_per_episode")
    with rom_errors(spec):
        game = AtariEnv(
            obs_type="ram" if shows_memory else "grayscale",
            frameskip=FRAME_SKIP if shows_memory else 1,
            render_mode=render_mode,
            **arguments,
        )
    game.spec = made_spec(spec, {"obs_type": obs_type, **kwargs})
    # With this entry point, gymnasium.make(env.spec) makes the whole env again.
    game.spec.entry_point = partial(make_atari_env, env_id)
    game.spec.order_enforce, game.spec.disable_env_checker = False, True
    if render_mode is not None:
        game.spec.kwargs["render_mode"] = render_mode
    env = AtariEpisode(game, noop_max, max_frames)
    if shows_memory:
        return RAMBits(env) if obs_type == "bits" else env
    try:
        grey = AtariPreprocessing(env, noop_max=0, frame_skip=FRAME_SKIP)
    except gym.error.DependencyNotInstalled:
        env.close()
        raise TaskDistillError(
            'The pixels of a single Atari env need OpenCV; run: pip install "gym-taskdistill[atari]".'
        ) from None
    return FrameStackObservation(grey, 4, padding_type="zero")
