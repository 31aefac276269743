"""Scripts that measure. Each prints tables with the machine and the commit; docs/benchmarks.md keeps them."""
