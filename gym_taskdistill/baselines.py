"""``python -m gym_taskdistill.baselines``; see `gym_taskdistill.cli.baselines`."""

from gym_taskdistill.cli.baselines import main

if __name__ == "__main__":
    main()
