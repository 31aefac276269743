"""What the stages of a build share: units, the work store, sorting on disk, keys."""
