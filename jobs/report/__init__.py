"""Pictures of a run: animated heatmaps of its gates, a graph over time, and one HTML file that holds everything."""
