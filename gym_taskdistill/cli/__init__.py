"""The command lines; each is ``taskdistill <command>`` and ``python -m gym_taskdistill.<command>``."""
