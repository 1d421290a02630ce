"""What `gatewatch copy` does: writes the points of one store into another."""
