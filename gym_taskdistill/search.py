"""``python -m gym_taskdistill.search``; see `gym_taskdistill.cli.search`."""

from gym_taskdistill.cli.search import main

if __name__ == "__main__":
    main()
