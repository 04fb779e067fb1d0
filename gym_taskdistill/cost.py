"""``python -m gym_taskdistill.cost``; see `gym_taskdistill.cli.cost`."""

from gym_taskdistill.cli.cost import main

if __name__ == "__main__":
    main()
