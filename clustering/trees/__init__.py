"""Vectors to a tree of domains, and every document to a leaf."""
