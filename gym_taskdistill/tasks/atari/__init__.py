"""Atari games: which there are, how a single env and a vector env of one are made."""
