"""Side-by-side measurements, each one command, each printed as ratios within one run."""
