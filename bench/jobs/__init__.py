"""What the jobs reach: windows scored, points read, and where the time goes."""
