"""``python -m gym_taskdistill.train``; see `gym_taskdistill.cli.train`."""

from gym_taskdistill.cli.train import main

if __name__ == "__main__":
    main()
