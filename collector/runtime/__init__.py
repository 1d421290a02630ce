"""What surrounds a training: signals, the end of the process, native threads, and errors that must not reach it."""
