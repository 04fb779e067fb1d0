"""What ``docs/results.md`` says around its tables."""

from __future__ import annotations

INTRODUCTION = """\
# Results

<!-- Written by scripts/make_results.py from the cards of the zoo; do not edit. -->

## What is compared

A distilled dataset is a handful of made-up observations with labels. A network that has never seen the task,
its weights random, is trained on them for one step of gradient descent, or a few; then it plays. The tables
say what return such **fresh agents** reach: higher is better. Beside ours stand

- what the paper reports for its own datasets ("paper, distilled"),
- what reinforcement learning reaches in the environment itself ("RL", "PPO"),
- what random actions score, where the paper tells it.

A figure such as 499.6 ± 0.6 is a mean and a standard deviation. Over what, each table says, for two things
vary. **Over agents**: one dataset, many random networks; it tells how surely a dataset works. **Over
distillations**: the whole making of the dataset, repeated from nothing with another seed; it tells how surely
the *method* works, and is what the paper's ± is. The 95 % interval says where the mean over many more
distillations probably lies; of three or five of them it is a rough guess. IQM is the mean of the middle half,
which one lucky or unlucky distillation does not move.

What simpler things score, such as real observations in the place of distilled ones, is measured by
[one command](baselines.md).

## Protocol

- Fresh learners are drawn from a learner distribution, never with a seed of training, and trained on
  the dataset for its inner steps, one unless said otherwise. They see no environment before the test.
- Each then plays full episodes, scored by raw rewards. The tables say how many learners and episodes.
- A score is the mean ± standard deviation **over agents** of their mean returns; the minimum is the
  mean return of the worst agent.
- Policies are stochastic as in the paper; deterministic ones, which take their most likely action,
  are given beside them where they were tested.
- The best dataset of a run was chosen with other seeds than the ones that scored it."""

LEGACY = "legacy"

LEGACY_TEXT = """\
An entry marked *legacy* was made before recipes had stages: its card does not hold all that its making took,
so that `taskdistill reproduce` refuses it. Its rows and its score are as good as any, and it stays until an
entry that can be reproduced replaces it."""

DISTILLATIONS_TEXT = """\
## Distillations

Entries that were made from nothing with several seeds: the mean and the standard deviation over
distillations, as the paper's ± is, the mean's 95 % interval (by a bootstrap over distillations) and the
interquartile mean, and the mean over agents of each; * marks the dataset that ships, that of
the best score on the selection seed. `taskdistill reproduce ENTRY --seeds 0-2` makes them again. The tables
further below show the dataset that ships."""

TABLE_1_TEXT = """\
## N-dimensional cart-pole: Table 1 side by side

Rows are datasets, columns the distributions from which the tested learners are drawn; an episode
returns at most 500. Λ is the paper's: two hidden layers of 64, orthogonal initialisation. The other
columns change the initialisation or the architecture. The paper distilled over Λ alone; over what
ours were distilled stands under [Cost](#cost). The paper's numbers are those of its Table 1:
100 learners, 100 episodes, stochastic, one inner step."""

MINIMUM_TEXT = """\
### The worst agent

The mean return of the worst agent in each cell; the paper does not report it."""

COST_TEXT = """\
### Cost

A dataset is the best of its run: env steps are counted up to it, wall-clock is the whole run's. The
card, linked, has the settings and the versions."""

MUJOCO_TEXT = """\
## MuJoCo: Table 4 side by side

The paper's eight tasks come first, in v4 as there, then those that it does not have, then v5. Its
figures are those of its Table 4: it distilled for 24 hours on 4 GPUs into 64 rows for one inner step, and
tested each dataset by 1000 agents with one episode each. They are left out for v5, which changed most
observations or rewards. Pusher-v4 cannot run on mujoco >= 3.

The two ± differ: the paper's is over 5 distillations, in RL over 5 agents; ours is over the agents trained
on one dataset. Ours are drawn from the distribution over which the dataset was distilled: Λ, two hidden
layers of 64, unless said otherwise; for more than one inner step it may be one of several there.
The minimum is that of the stochastic ones; where agents × episodes stand twice, the stochastic test had
more. Of a legacy entry env steps and wall-clock are those of its last run alone.

Our PPO is the same program with the whole network in the encoder, so that nothing is drawn afresh. SB3's has
the hyperparameters of its zoo (tuned for v3), Humanoid's over 1 and HumanoidStandup's over 1.5 of its 10
million steps. Both are tested stochastically over 100 episodes; the settings of each stand in its file in
[references](references). `research/run_reference.py` measures SB3's; ours are of an earlier release, and the
variant `expert` of today's recipes is their successor."""

NETWORKS_TEXT = """\
## Any network: what trains on what

Rows are datasets, columns twelve architectures of the networks that are trained on them: mean return over
agents, and the worst agent's in brackets. Networks like the first six may have been drawn while a universal
dataset was distilled; networks like the last six never were. All other datasets were distilled over Λ,
`alpha_c`, alone. [Learners](learners.md) says what each name stands for."""

ATARI_TEXT = """\
## Atari: Table 2 side by side

An encoder of l layers is trained by the outer loop and shared by all learners, which are the remaining
layers of the Nature CNN, drawn afresh; l = 4 is a linear probe, l = 0 full distillation. The paper's figures
are those of its Table 2a, 100 agents with 100 games each; * had not converged, † ran on 6 GPUs. Games are
whole, frames are skipped by fours without sticky actions, and rewards are raw; ours are drawn from the
distribution over which the dataset was distilled. A game's RAM, 128 bytes for a multi-layer perceptron, is
not the paper's setting: there full distillation is affordable on two cores. Of a legacy entry env steps and
wall-clock are PPMO's in its last run alone. Our PPO is the same program with the whole network in the
encoder, tested over 100 games.

"One action" is what one action, always, scores by itself, but for some random ones: where it was a dataset's
first expert, it says what is left for the dataset to add. `research/run_reference.py` measures it."""

COST_OF_AGENTS_TEXT = """\
## What an agent costs: Table 3 for our tasks

The paper times Centipede on one A100: 3.25 s an epoch of PPO, 3.73 s a meta-epoch, 0.18 s for one agent on
its 10 rows. Ours were timed on one core, by the clock; distillation's time is that of its card, tests
included, and may come from a slower or busier machine than the others'. PPO is the same program with the
whole network in the encoder, over the same env steps; an iteration is a rollout with the updates on it.
Imitation, with which Centipede begins in both, is left out.
From the number of agents in the last column on, distilling once and training each on the rows is cheaper
than training each by PPO. `research/run_reference.py` times the training on the rows; PPO's times are of an
earlier release. `taskdistill cost ENTRY` tells the same of any entry, with agents timed on your machine."""

OTHERS_TEXT = """\
## Other tasks

Learners are drawn from the distribution over which the dataset was distilled."""

CONTROL_TEXT = """\
## Control: fewer rows than k_min

Equation 3 of the paper asks for k_min = ⌈c / 2⌉ + 1 rows to tell c actions apart; with one row fewer the
paper's 2D cart-pole fails at 40.6. The same recipe as `k_min`, with fewer rows
(`python -m gym_taskdistill.train CartPoleND-v0/n=2,k_min --set k=1 --seed 0`), gives what stands below.
One step from a last layer near zero makes a learner's logits about Σ yᵢ h(xᵢ)·h(s), and h is odd:
h(−s) = −h(s). A row can therefore serve two actions, one on either side of its hyperplane, where opposite
states want opposite actions, as here: c / 2 rows may be enough, fewer are not."""

REPRODUCE_TEXT = """\
## Reproduce

The first command distils an entry again, from nothing, and sets the result beside its card; the second scores
the dataset in the zoo again, by the protocol of the tables above: `--agents`, `--episodes` and `--learners`
are those of its row. `make results` rebuilds this page from the zoo.

```sh
taskdistill reproduce CartPoleND-v0/n=2,k_min
taskdistill evaluate CartPoleND-v0/n=2,k_min --learners table_1 --agents 100 --episodes 100
taskdistill evaluate Hopper-v4/one-step --agents 1000 --episodes 1
```"""
