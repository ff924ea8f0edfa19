"""Models in this process: kernels, weights, caches, and the scheduler that owns a model."""
