"""A mixture that can change, to the same samples every time."""
