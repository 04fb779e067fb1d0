"""``python -m gym_taskdistill.export``; see `gym_taskdistill.cli.export`."""

from gym_taskdistill.cli.export import main

if __name__ == "__main__":
    main()
