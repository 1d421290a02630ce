"""Faults put into real trainings, and what finds them."""
