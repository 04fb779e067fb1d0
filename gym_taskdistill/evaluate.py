"""``python -m gym_taskdistill.evaluate``; see `gym_taskdistill.cli.evaluate`."""

from gym_taskdistill.cli.evaluate import main

if __name__ == "__main__":
    main()
