"""``python -m gym_taskdistill.plot``; see `gym_taskdistill.cli.plot`."""

from gym_taskdistill.cli.plot import main

if __name__ == "__main__":
    main()
