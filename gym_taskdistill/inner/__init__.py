"""The inner rule: how a learner is trained on the rows of a dataset."""
