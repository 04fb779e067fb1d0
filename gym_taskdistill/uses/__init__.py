"""What a dataset is for."""
