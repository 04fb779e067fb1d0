"""``python -m gym_taskdistill.zoo``; see `gym_taskdistill.cli.zoo`."""

from gym_taskdistill.cli.zoo import main

if __name__ == "__main__":
    main()
