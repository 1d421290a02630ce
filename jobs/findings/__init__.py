"""Findings about a run: its state, its table of gates, the causes of its scores, problems of its learning."""
