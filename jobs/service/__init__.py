"""The service `gatewatch jobs`: what runs when and where, and its own health."""
