"""A configuration for the nodes of a cluster: plan, canary, batches, gate, restore."""
