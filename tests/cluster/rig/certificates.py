"""The cluster's certificates and kubeconfigs, made by openssl."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

from rig.command import run
from rig.layout import API, NET, STATE, NodeLayout

PKI = STATE / "pki"

_API_NAMES = (
    f"IP:{NET}.10,IP:127.0.0.1,IP:10.97.0.1,DNS:kubernetes,DNS:kubernetes.default,"
    "DNS:kubernetes.default.svc"
)


def make(nodes: Sequence[NodeLayout]) -> None:
    """An authority, a certificate for each component and node, and their kubeconfigs."""
    PKI.mkdir(parents=True, mode=0o700)
    _key("ca")
    run("openssl", "req", "-x509", "-new", "-key", PKI / "ca.key", "-subj", "/CN=steerlab-rig",
        "-days", "3650", "-out", PKI / "ca.crt")  # fmt: skip
    run("openssl", "genpkey", "-algorithm", "RSA", "-out", PKI / "accounts.key")
    run("openssl", "pkey", "-in", PKI / "accounts.key", "-pubout", "-out", PKI / "accounts.pub")
    subjects = {
        "apiserver": "/CN=kube-apiserver",
        "admin": "/O=system:masters/CN=admin",
        "to-kubelet": "/O=system:masters/CN=apiserver-kubelet-client",
        "controller-manager": "/CN=system:kube-controller-manager",
        "scheduler": "/CN=system:kube-scheduler",
        "proxy": "/CN=system:kube-proxy",
        **{node.name: f"/O=system:nodes/CN=system:node:{node.name}" for node in nodes},
    }
    for name, subject in subjects.items():
        certificate(name, subject)
        (PKI / f"{name}.conf").write_text(kubeconfig(name))
        (PKI / f"{name}.conf").chmod(0o600)


def _key(name: str) -> None:
    run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256",
        "-out", PKI / f"{name}.key")  # fmt: skip


def certificate(name: str, subject: str) -> None:
    """A certificate of the cluster's authority, which says who a client is."""
    _key(name)
    extensions = "keyUsage=digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
    if name == "apiserver":
        extensions += f"subjectAltName={_API_NAMES}\n"
    (PKI / f"{name}.ext").write_text(extensions)
    request = PKI / f"{name}.csr"
    run("openssl", "req", "-new", "-key", PKI / f"{name}.key", "-subj", subject, "-out", request)
    run("openssl", "x509", "-req", "-in", request, "-CA", PKI / "ca.crt", "-CAkey", PKI / "ca.key",
        "-CAcreateserial", "-days", "3650", "-extfile", PKI / f"{name}.ext",
        "-out", PKI / f"{name}.crt")  # fmt: skip


def kubeconfig(name: str) -> str:
    """A kubeconfig with its credentials inside, so that it can be copied."""

    def quoted(file: str) -> str:
        return base64.b64encode((PKI / file).read_bytes()).decode()

    user = {
        "client-certificate-data": quoted(f"{name}.crt"),
        "client-key-data": quoted(f"{name}.key"),
    }
    cluster = {"server": API, "certificate-authority-data": quoted("ca.crt")}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "rig", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "rig", "context": {"cluster": "rig", "user": name}}],
            "current-context": "rig",
        },
        indent=1,
    )


def admin() -> Path:
    return PKI / "admin.conf"
