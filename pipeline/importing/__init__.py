"""Other people's shards become a corpus where they lie."""
