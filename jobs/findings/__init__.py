"""What can be said of a run: whether it lives, and why a score is high."""
