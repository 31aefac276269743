"""Input files to documents in parts, each with a role."""
