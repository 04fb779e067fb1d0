"""``python -m gym_taskdistill.enjoy``; see `gym_taskdistill.cli.enjoy`."""

from gym_taskdistill.cli.enjoy import main

if __name__ == "__main__":
    main()
