"""Offline: raw text to a corpus folder (embed, cluster, order, write)."""
