"""Environments; importing this module registers them with Gymnasium."""

import gymnasium as gym

from gym_taskdistill.envs.cartpole_nd import CartPoleNDEnv
from gym_taskdistill.envs.cartpole_nd_vector import CartPoleNDVectorEnv

__all__ = ["CartPoleNDEnv", "CartPoleNDVectorEnv"]

# Gymnasium warns when an id is registered twice, which a reload of this module would do.
if "CartPoleND-v0" not in gym.registry:
    gym.register(
        id="CartPoleND-v0",
        entry_point="gym_taskdistill.envs.cartpole_nd:CartPoleNDEnv",
        vector_entry_point="gym_taskdistill.envs.cartpole_nd_vector:CartPoleNDVectorEnv",
        max_episode_steps=500,
        reward_threshold=475.0,
    )
