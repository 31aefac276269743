"""Positions to samples, whatever the shards hold."""
