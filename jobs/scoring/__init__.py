"""From captures to derived metrics and anomaly scores."""
