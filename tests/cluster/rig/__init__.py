"""A real Kubernetes on one machine for the tests: nodes are namespaces, binaries come from Go modules."""
