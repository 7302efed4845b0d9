"""A real Kubernetes on one machine for the tests: nodes are namespaces, binaries come from Go modules.

root netns   lab0 192.168.60.1 ---+
master       eth1 192.168.60.10 --+-- br0, a switch in a namespace of its own
worker1..n   eth1 192.168.60.11 --+
pod eth0 --- cali* (node) --- vxlan.calico (id 4096, port 4789) --- eth1
"""
