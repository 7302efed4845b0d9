"""The cluster target: measured pods, steering from a namespace of its own, measurement."""
