"""``python -m gym_taskdistill.push``; see `gym_taskdistill.cli.push`."""

from gym_taskdistill.cli.push import main

if __name__ == "__main__":
    main()
