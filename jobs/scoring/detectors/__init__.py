"""Detectors: deviations in, scores out. 0 to 1 is normal, above 1 anomalous; NaN where there is nothing to say."""
