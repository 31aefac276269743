"""Who runs the units of a stage: this process, a few beside it, or a Ray cluster."""
