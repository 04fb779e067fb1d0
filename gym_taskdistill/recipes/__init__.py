"""Recipes, their stages, and the runs that carry them out."""
