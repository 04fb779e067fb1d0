"""Which tests of Gymnasium and SB3 are run on which class of ours, and which of them cannot apply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Suite:
    """Tests of one library, pointed at one thing of ours.

    Attributes:
        name: What is tested.
        source: ``"gymnasium"`` or ``"sb3"``.
        files: Globs below ``tests/``.
        substitutions: Regular expressions and what takes their place, in these files.
        not_ours: Globs of test names, and why each does not apply.
        unrelated: Globs of slow tests that are known to make none of ours.
    """

    name: str
    source: str
    files: tuple[str, ...]
    substitutions: Mapping[str, str]
    not_ours: Mapping[str, str] = field(default_factory=dict)
    unrelated: tuple[str, ...] = ()


_SPEED = "asks for a number of steps in a second"
_VALUE_CLIP = "clips the value function, which PPMO does not"
_NO_CODE = "asks that a file holds a function; PPMO's hold no code, and ask for it again"

#: A line after the last import of SB3's, so that its names are ours from there on.
_AFTER_SB3 = r"(?m)\A((?:.|\n)*^from stable_baselines3[^\n(]*(?:\([^)]*\))?\n)"

#: Tests of SB3's other algorithms.
_OTHERS = ("*SAC*", "*TD3*", "*DQN*", "*DDPG*", "*test_sac*", "*test_dqn*", "*test_deterministic_pg*")

#: Slow tests in the same files that make no model.
_ABOUT_NO_MODEL = (
    "*test_make_atari_env*",
    "*test_make_vec_env*",
    "*test_her*",
    "*test_train_freq*",
    "*test_n_critics*",
    "*test_offpolicy*",
)

SUITES = (
    Suite(
        "CartPoleND-v0",
        "gymnasium",
        ("envs/*.py", "envs/registration/test_[mes]*.py", "vector/*.py", "wrappers/**/*.py", "utils/*.py"),
        {
            r'"gymnasium\.envs\." in': '"gym_taskdistill.envs." in',
            r"CartPole-v1\b": "CartPoleND-v0",
            r"sutton_barto_reward=True": "n=3",
            r'"sutton_barto_reward": True': '"n": 3',
            r"envs\.unwrapped\.prev_done": "envs.unwrapped._ended.size",
            # The env alone has no lists of frames; those are a wrapper's.
            r'CartPoleEnv\(render_mode="rgb_array_list"': 'CartPoleEnv(render_mode="rgb_array"',
            # An attribute of each env; of CartPoleND it is a constant, and `n` an attribute.
            r'call\("gravity"\)': 'call("n")',
            r"gravity\[i\], float": "gravity[i], int",
            r"gravity\[i\] == 9\.8\b": "gravity[i] == 1",
            # Lists of all environments, which these files take from there.
            r"from tests\.envs\.utils import": r"import tests.envs.utils\n\g<0>",
            r"from gymnasium\.envs\.classic_control import CartPoleEnv": (
                "from gym_taskdistill.envs import CartPoleNDEnv as CartPoleEnv"
            ),
            r"from gymnasium\.envs\.classic_control\.cartpole import CartPoleVectorEnv": (
                "from gym_taskdistill.envs import CartPoleNDVectorEnv as CartPoleVectorEnv"
            ),
        },
        {
            "*test_env_spec_pprint": "compares the printed registration with CartPole's, module and all",
            "*test_pygame_selective_init": "asks for pygame's display, which is not needed here",
        },
        (
            "*test_vector_obs_action_spaces*",
            "*test_autoreset_mode.py::*spaces*",
            "*test_observation_mode*",
            "*Ant-v4*",
            "*CarRacing*",
            "*test_async_vector_subenv_error",
        ),
    ),
    Suite(
        "vec-env adapters",
        "sb3",
        ("test_vec_*.py", "test_monitor.py", "test_gae.py"),
        {
            _AFTER_SB3: r"\1from peer_stand_ins import SyncAdapter as DummyVecEnv\n"
            r"from peer_stand_ins import Processes as SubprocVecEnv\n",
        },
        {
            "*test_vecenv_func_checker": "asks that one env twice is refused, which is Gymnasium's to say",
            "*test_check_nan": "sends more actions than there are envs",
            "*test_subproc_start_method": "chooses how processes start",
        },
        ("*test_her_*", "*test_offpolicy*"),
    ),
    Suite(
        "to_sb3 models",
        "sb3",
        (
            "test_predict.py",
            "test_save_load.py",
            "test_run.py",
            "test_callbacks.py",
            "test_deterministic.py",
            "test_spaces.py",
            "test_dict_env.py",
            "test_cnn.py",
            "test_utils.py",
            "test_identity.py",
            "test_train_eval_mode.py",
            "test_tensorboard.py",
            "test_logger.py",
            "test_gae.py",
            "test_custom_policy.py",
            "test_vec_extract_dict_obs.py",
            "test_vec_monitor.py",
        ),
        {_AFTER_SB3: r"\1from peer_stand_ins import DistilledPPO as PPO, DistilledA2C as A2C\n"},
        {
            "*test_policy_hint*": "asks for SB3's hint that MlpPolicy takes no dictionaries",
            "*test_dict_nested": "asks for SB3's own words that nested dictionaries are refused",
            "*test_save_load_policy(True*": "explores by the state, which an agent cannot begin with",
            "*test_save_load_env_cnn*": "loads files of SB3 before 1.7",
            "*test_multidim_binary_not_supported": "asks for SB3's own words that actions are refused",
            "*test_train_eval_mode.py::*": "gives a features extractor of its own",
            "*test_flexible_mlp*": "gives the shapes of actor and critic, which the learner decides",
            "*test_ppo_warnings": "ends in a hint that is for SB3's MlpPolicy alone",
            "*test_identity.py::*": "asks how much PPO learns in 1000 steps from its own start",
            "*test_infinite_horizon*": "asks how fast A2C learns",
            "*test_fps_logger*": _SPEED,
            "*test_image_like_input(True-*": "asks for an assertion of CnnPolicy's",
        },
        (*_OTHERS, *_ABOUT_NO_MODEL),
    ),
    Suite(
        "PPMO",
        "sb3",
        (
            "test_run.py",
            "test_save_load.py",
            "test_predict.py",
            "test_callbacks.py",
            "test_deterministic.py",
            "test_spaces.py",
            "test_dict_env.py",
            "test_cnn.py",
            "test_utils.py",
            "test_identity.py",
            "test_tensorboard.py",
            "test_logger.py",
            "test_gae.py",
            "test_buffers.py",
            "test_vec_extract_dict_obs.py",
            "test_vec_monitor.py",
        ),
        {
            _AFTER_SB3: r"\1from peer_stand_ins import PPMOAsPPO as PPO, PPMOAsA2C as A2C\n",
            # What is shown matters, not by which wrapper.
            r"assert is_vecenv_wrapped\(model\.get_env\(\), VecTransposeImage\)": (
                "assert model.get_env().observation_space.shape == (1, 40, 40)"
            ),
            "wasn't a zip-file": "damaged, or another kind of file",
        },
        {
            "*test_custom_rollout_buffer": "gives a rollout buffer of its own",
            "*test_gae_computation*": "gives a policy class of its own",
            "*test_infinite_horizon*": "asks the policy for values of states; PPMO's sees flat observations",
            "*test_policy_hint*": "asks that MlpPolicy refuses dictionaries; PPMO's learners take them",
            "*test_dict_nested": "asks that nested dictionaries are refused; PPMO takes them",
            "*test_image_like_input(True-*": "asks for an assertion of CnnPolicy's",
            "*test_identity.py::*": "asks how much PPO learns in 1000 steps by its settings",
            "*test_fps_logger*": _SPEED,
            "*test_ppo(*0.2-*": _VALUE_CLIP,
            "*test_ppo_warnings": "asks for warnings of batches that do not divide the rollout, refused here",
            "*test_save_load_policy*": "saves the policy alone, by pickle",
            "*test_set_env(*": "goes on in the middle of episodes after a file was loaded; PPMO's begin anew",
            "*test_save_load_env_cnn*": "loads files of SB3 before 1.7",
            "*test_load_invalid_object": "damages the pickled part of a file, which PPMO's have not",
            "*test_cast_lr_schedule": _NO_CODE,
            "*test_save_load_backward_compatible*": _NO_CODE,
            "*test_save_load_clip_range_portable*": "looks at the class that a setting is kept in",
            "*test_save_load_net_arch_none": "looks at a setting of SB3's policies",
            "*test_multidim_binary_not_supported": "asks that actions are refused that PPMO takes",
        },
        (*_OTHERS, *_ABOUT_NO_MODEL),
    ),
)
