"""The lab target: network namespaces of this machine."""
