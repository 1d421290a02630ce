"""The stack of docker-compose.yml, run for real. `make test-stack` runs it, and no other target does."""
