"""The domains of a corpus, gathered and shown."""
