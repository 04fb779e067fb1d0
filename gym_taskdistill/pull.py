"""``python -m gym_taskdistill.pull``; see `gym_taskdistill.cli.pull`."""

from gym_taskdistill.cli.pull import main

if __name__ == "__main__":
    main()
