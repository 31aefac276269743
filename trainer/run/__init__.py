"""One training run, as a story and its chapters."""
