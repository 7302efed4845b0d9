"""Runs on a cluster: commands in pods and on nodes, measurement, drift, restoring a node."""
