"""Kubernetes' own daemons, as the nodes of the test cluster run them."""

from __future__ import annotations

import json
from pathlib import Path

from rig.certificates import PKI
from rig.layout import NET, PAUSE, POD_NET, SERVICES
from rig.node import Node
from rig.runtime import BIN


def start_control_plane(node: Node, binaries: Path) -> None:
    """etcd (in memory), API server, controller manager and scheduler."""
    local = "http://127.0.0.1:2379"
    node.daemon(
        "etcd", "/usr/bin/etcd", "--name=rig", "--data-dir=/run/etcd", "--unsafe-no-fsync",
        f"--listen-client-urls={local}", f"--advertise-client-urls={local}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=rig=http://127.0.0.1:2380",
    )  # fmt: skip
    start_api(node, binaries)
    node.daemon(
        "controller-manager", binaries / "kube-controller-manager",
        f"--kubeconfig={PKI / 'controller-manager.conf'}", "--leader-elect=false",
        "--use-service-account-credentials=true", "--bind-address=127.0.0.1",
        f"--service-account-private-key-file={PKI / 'accounts.key'}",
        f"--root-ca-file={PKI / 'ca.crt'}",
    )  # fmt: skip
    node.daemon(
        "scheduler", binaries / "kube-scheduler", f"--kubeconfig={PKI / 'scheduler.conf'}",
        "--leader-elect=false", "--bind-address=127.0.0.1",
    )  # fmt: skip


def start_api(node: Node, binaries: Path) -> None:
    node.daemon(
        "apiserver", binaries / "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={NET}.10", "--bind-address=0.0.0.0", "--secure-port=6443",
        f"--service-cluster-ip-range={SERVICES}", "--allow-privileged=true",
        "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
        f"--client-ca-file={PKI / 'ca.crt'}", f"--tls-cert-file={PKI / 'apiserver.crt'}",
        f"--tls-private-key-file={PKI / 'apiserver.key'}",
        f"--kubelet-client-certificate={PKI / 'to-kubelet.crt'}",
        f"--kubelet-client-key={PKI / 'to-kubelet.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={PKI / 'accounts.pub'}",
        f"--service-account-signing-key-file={PKI / 'accounts.key'}",
    )  # fmt: skip


def start_kubelet(node: Node, binaries: Path) -> None:
    etc = node.folder / "etc"
    (etc / "kubelet.json").write_text(
        json.dumps(
            {
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "kind": "KubeletConfiguration",
                "address": node.layout.address,
                "authentication": {
                    "anonymous": {"enabled": False},
                    "webhook": {"enabled": True},
                    "x509": {"clientCAFile": str(PKI / "ca.crt")},
                },
                "authorization": {"mode": "Webhook"},
                "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
                "cgroupDriver": "cgroupfs",
                "failSwapOn": False,
                "oomScoreAdj": 0,
                "imageGCHighThresholdPercent": 100,  # local images cannot be pulled again
                "evictionHard": {
                    "memory.available": "100Mi",
                    "nodefs.available": "1%",
                    "imagefs.available": "1%",
                },
            }
        )
    )
    node.daemon(
        "kubelet", "env", f"PATH={BIN}:/usr/sbin:/usr/bin:/sbin:/bin", binaries / "kubelet",
        f"--config={etc / 'kubelet.json'}", f"--kubeconfig={PKI / f'{node.name}.conf'}",
        f"--hostname-override={node.name}", f"--node-ip={node.layout.address}",
        f"--node-labels={node.layout.labels}", f"--pod-infra-container-image={PAUSE}",
    )  # fmt: skip


def start_proxy(node: Node, binaries: Path) -> None:
    etc = node.folder / "etc"
    nothing = {
        "maxPerCore": 0,
        "min": 0,
        "tcpEstablishedTimeout": "0s",
        "tcpCloseWaitTimeout": "0s",
    }
    (etc / "proxy.json").write_text(
        json.dumps(
            {
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "mode": "iptables",
                "clusterCIDR": f"{POD_NET}.0.0/16",
                "hostnameOverride": node.name,
                "clientConnection": {"kubeconfig": str(PKI / "proxy.conf")},
                "oomScoreAdj": 0,
                "healthzBindAddress": f"{node.layout.address}:10256",
                "conntrack": nothing,  # its sysctls cannot be set outside the first namespace
            }
        )
    )
    node.daemon(
        "proxy", "env", f"PATH={BIN}:/usr/sbin:/usr/bin:/sbin:/bin", binaries / "kube-proxy",
        f"--config={etc / 'proxy.json'}",
    )  # fmt: skip
