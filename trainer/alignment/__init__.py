"""How well the gradient of each domain points where the target's does."""
