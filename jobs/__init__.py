"""Gatewatch's jobs: read points, write points, draw pictures. No deep-learning framework is imported here."""
