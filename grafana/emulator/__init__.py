"""Do what Grafana does to a Flux query and its answer, so that dashboards are tested without a Grafana."""
