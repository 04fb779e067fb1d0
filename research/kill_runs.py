"""Kill runs at random moments, resume them, and compare: ``python research/kill_runs.py --kills 60``.

The run has a stage of PPMO, one of imitation with two rounds, and one that adapts. Each run is killed several
times by SIGKILL, and must end with the same datasets, bit for bit, as one that was left alone.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gym_taskdistill.dataset.file import read_card
from gym_taskdistill.machine import use_threads
from gym_taskdistill.recipes.file import load
from gym_taskdistill.recipes.run import Run

RECIPE = """
tasks: [Pendulum-v1]
settings: {learners: alpha_c, k: 4, n_envs: 16, n_learners: 4, normalize: true, inner: {lr: 0.1}}
evaluation: {n_agents: 2, n_episodes: 1, final_agents: 2, final_episodes: 1}
variants:
  chain:
    stages:
      - ppmo: {total_timesteps: 20480, n_steps: 32, batch_size: 256}
      - imitate:
          {expert: previous, fine_tune: true, n_steps: 2048, n_rounds: 2, n_updates: 100, batch_size: 64}
      - adapt: {log_std: -1}
"""

#: Each run is killed this often, if it does not end before.
KILLS_EACH = 5


def outputs(run: Run) -> list[str]:
    """Return the digests of what each stage made."""
    return [record.output for record in read_card(run.result).lineage]


def kill_once(run: Run, longest_s: float) -> bool:
    """Resume a run in another process and kill it; return whether it was still running."""
    train = [sys.executable, "-m", "gym_taskdistill.train", "--no-progress-bar"]
    process = subprocess.Popen(
        [*train, "--resume", str(run.folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    lock = run.folder / ".lock"
    lock.unlink(missing_ok=True)
    while not lock.exists() and process.poll() is None:
        time.sleep(0.01)  # until it has imported everything and begun
    time.sleep(random.uniform(0, longest_s))
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return alive


def main() -> None:
    """Kill runs and count differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    args = parser.parse_args()
    use_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "chain.yaml").write_text(RECIPE)
        recipe = load(str(folder / "chain.yaml"))
        whole = Run.create(recipe, 0, folder)
        start = time.perf_counter()
        whole.execute(progress_bar=False)
        seconds = time.perf_counter() - start
        kills = differences = number = 0
        while kills < args.kills:
            number += 1
            run = Run.create(recipe, 0, folder)
            for _ in range(KILLS_EACH):
                kills += kill_once(run, 2 * seconds / KILLS_EACH)
                if run.result.is_file():
                    break
            Run.open(run.folder).execute(progress_bar=False)
            differences += outputs(run) != outputs(whole)
            print(f"{number} runs, {kills} kills: {differences} differences", flush=True)


if __name__ == "__main__":
    main()
