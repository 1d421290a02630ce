"""Push dashboards, alert rules and what they need into a Grafana, over its HTTP API."""
