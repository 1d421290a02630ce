"""What is fed to the network: measured of a batch, compared with earlier ones, and recorded with a capture."""
