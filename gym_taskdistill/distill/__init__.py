"""The method: PPMO, imitation, and what they share."""
