"""Exact gate activations from weights and inputs. NumPy only: no framework is imported here."""
