"""The durable queue on disk between a training and a store, and the thread that empties it."""
