"""Copying a corpus to a store and back."""
