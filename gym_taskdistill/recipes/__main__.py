"""``python -m gym_taskdistill.recipes``; see `gym_taskdistill.cli.recipes`."""

from gym_taskdistill.cli.recipes import main

if __name__ == "__main__":
    main()
