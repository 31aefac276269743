"""Documents in leaf order to tokens, blocks and shards."""
