"""Where the bytes of a corpus come from: files, or blocks of a store, cached."""
