"""What Grafana does to a Flux query and to its answer, for those who check dashboards without a Grafana."""
