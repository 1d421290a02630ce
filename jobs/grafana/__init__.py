"""Dashboards and alert rules: checked here, and pushed to a Grafana."""
