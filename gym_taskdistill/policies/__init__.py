"""Learners that were trained on a dataset: how they act, how they are tested and exported."""
