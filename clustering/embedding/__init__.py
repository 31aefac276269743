"""Documents to vectors."""
