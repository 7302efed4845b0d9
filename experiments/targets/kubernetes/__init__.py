"""The Kubernetes target: pods and nodes of a cluster."""
