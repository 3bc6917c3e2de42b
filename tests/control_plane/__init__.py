"""Sluice's manifests on a real Kubernetes control plane, without a cluster: `make control-plane`.

etcd, the API server, the controllers, the scheduler and KEDA are built from their makers' Go modules and run on free
ports of this machine. The node is ours: its pods are processes of this machine, or only said to run.
"""
