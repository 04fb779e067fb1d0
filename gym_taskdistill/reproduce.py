"""``python -m gym_taskdistill.reproduce``; see `gym_taskdistill.cli.reproduce`."""

from gym_taskdistill.cli.reproduce import main

if __name__ == "__main__":
    main()
