"""Gatewatch's collector: looks inside a recurrent network while it trains, and writes points."""
