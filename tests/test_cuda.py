"""The same on a GPU, where there is one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gym_taskdistill import DistilledPolicy, zoo
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill.experts import one_action, record
from gym_taskdistill.distill.imitation import Imitation
from gym_taskdistill.distill.ppmo import PPMO
from gym_taskdistill.policies.evaluation import evaluate
from gym_taskdistill.tasks.task import Task

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CART_POLE = Task("CartPoleND-v0", {"n": 1})
PONG = Task("PongNoFrameskip-v4")


def cart_pole(device: str) -> PPMO:
    return PPMO(
        "alpha_c", CART_POLE.make_vec_env(16), n_learners=4, n_steps=64, batch_size=256, seed=0, device=device
    )


def pong(encoder_layers: int, device: str = "cuda") -> PPMO:
    return PPMO(
        "alpha_a",
        PONG.make_vec_env(8, training=True),
        n_learners=4,
        n_steps=8,
        batch_size=32,
        encoder_layers=encoder_layers,
        share_features_extractor=True,
        mixed_precision=True,
        learning_rate=1e-3,
        pixel_statistics=64,
        seed=0,
        device=device,
    )


def test_ppmo_learns_cart_pole() -> None:
    model = cart_pole("cuda")
    before = evaluate(model.dataset(), 32, 1, env=CART_POLE).mean
    model.learn(60_000)
    after = evaluate(model.dataset(), 32, 1, env=CART_POLE).mean
    assert after > 3 * before
    assert all(p.is_cuda for p in model.policy.parameters())


def test_the_loss_and_its_gradients_are_the_cpus() -> None:
    cpu, gpu = cart_pole("cpu"), cart_pole("cuda")
    cpu.learn(1024)  # one rollout and its passes
    gpu.policy.load_state_dict(cpu.policy.state_dict())
    gpu.loop.fresh = cpu.loop.fresh.replace([p.cuda() for p in cpu.loop.fresh.params])
    samples = next(iter(cpu.rollout_buffer.get()))
    (loss, _), (other, _) = cpu.loss(samples, 0.2), gpu.loss(type(samples)(*(t.cuda() for t in samples)), 0.2)
    torch.testing.assert_close(other.cpu(), loss, rtol=1e-4, atol=1e-6)
    ours, theirs = (
        torch.autograd.grad(value, [model.loop.x, model.loop.y, model.loop.log_inner_lr])
        for value, model in ((loss, cpu), (other, gpu))
    )
    for expected, found in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-5)


def test_a_checkpoint_goes_on_bit_for_bit_and_on_the_cpu_too(tmp_path: Path) -> None:
    model = cart_pole("cuda")
    model.learn(2048)
    model.save_checkpoint(tmp_path / "checkpoint.pt")
    model.learn(2048, reset_num_timesteps=False)
    resumed = cart_pole("cuda")
    resumed.load_checkpoint(tmp_path / "checkpoint.pt")
    resumed.learn(2048, reset_num_timesteps=False)
    assert resumed.dataset().replace(card=model.dataset().card) == model.dataset()
    on_cpu = cart_pole("cpu")
    on_cpu.load_checkpoint(tmp_path / "checkpoint.pt")
    on_cpu.learn(2048, reset_num_timesteps=False)
    assert on_cpu.num_timesteps == 4096


@pytest.mark.parametrize("encoder_layers", [5, 4, 3])
def test_atari_behind_an_encoder(encoder_layers: int, tmp_path: Path) -> None:
    model = pong(encoder_layers)
    start = [p.clone() for p in model.loop.encoder.params]
    model.learn(128)
    assert not any(torch.equal(a, b) for a, b in zip(start, model.loop.encoder.params, strict=True))
    path = model.dataset().save(tmp_path / "pong")
    again = DistilledDataset.load(path)
    assert again == model.dataset()
    other = pong(encoder_layers, "cpu")
    other.load_dataset(again.to("cuda"))
    found, expected = other.dataset()._tensors(), again._tensors()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name].to(tensor.device), tensor, rtol=0, atol=0)


def test_imitation_learns() -> None:
    settings = {"encoder_layers": 4, "mixed_precision": True, "pixel_statistics": 64}
    imitation = Imitation(PONG, "alpha_a", k=4, n_learners=2, seed=0, device="cuda", **settings)
    expert = one_action(2, PONG.action_space)
    recording = record(expert, PONG.make_vec_env(4), 64, behaviour=imitation)
    first = imitation.update(recording, 1, 32)
    assert imitation.update(recording, 200, 32) < 0.7 * first


def test_a_zoo_entry_scores_as_on_the_cpu() -> None:
    dataset = DistilledDataset.load(zoo.find("CartPoleND-v0", "k_min", n=2).path).to("cuda")
    assert evaluate(dataset, 50, 1).mean > 490
    policy = DistilledPolicy(dataset, seed=0)
    action, _ = policy.predict(np.zeros(8, dtype=np.float32))
    assert Task("CartPoleND-v0", {"n": 2}).action_space.contains(action)


def test_the_commands_use_it(tmp_path: Path) -> None:
    launcher = "-m torch.distributed.run --standalone --nproc-per-node=1 -m"
    train = "gym_taskdistill.train cartpole --total-timesteps 1024 --no-progress-bar --seed 3 --device cuda"
    settings = (
        "--set n_envs=8 n_steps=32 batch_size=64 n_agents=2 n_episodes=1 final_agents=2 final_episodes=1"
    )
    run([*f"{launcher} {train} {settings}".split(), "--out", str(tmp_path)])
    (folder,) = tmp_path.iterdir()
    best = str(folder / "best.safetensors")
    run(["-m", "gym_taskdistill.cli.evaluate", best, "--agents", "2", "--episodes", "1", "--device", "cuda"])


def run(arguments: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
