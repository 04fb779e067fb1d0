"""``python -m gym_taskdistill.summary``; see `gym_taskdistill.cli.summary`."""

from gym_taskdistill.cli.summary import main

if __name__ == "__main__":
    main()
