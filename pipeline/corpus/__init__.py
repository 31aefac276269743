"""A corpus, opened: its manifest, its versions, its tree at any granularity."""
