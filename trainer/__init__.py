"""Training: gradients to mixtures, and the comparison of mixers."""
