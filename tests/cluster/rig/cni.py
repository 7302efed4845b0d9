"""The CNI plugin of the nodes: wires a pod as Calico does. Run by containerd, not by the tests.

A veth whose end in the node is `cali*`, the gateway 169.254.1.1 that proxy ARP answers for, and
a /32 route. Addresses come from the `host-local` plugin.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

GATEWAY = "169.254.1.1"
PREFIX = Path(
    "/var/tmp/steerlab-cluster/prefix"
)  # of the names of host ends; cali where there is none
IPAM = "/usr/lib/cni/host-local"


def _run(*words: str) -> None:
    subprocess.run(words, check=True, stdout=sys.stderr)


def _ipam(conf: str) -> dict[str, Any]:
    done = subprocess.run([IPAM], input=conf, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout or "{}")
    return result


def add(conf: str, netns: str, device: str, host: str) -> dict[str, Any]:
    address = _ipam(conf)["ips"][0]["address"].partition("/")[0]
    mtu = str(json.loads(conf).get("mtu", 1450))
    inside = ("nsenter", f"--net={netns}", "ip")
    _run("ip", "link", "add", host, "address", "ee:ee:ee:ee:ee:ee", "mtu", mtu, "type", "veth",
         "peer", "name", device, "mtu", mtu, "netns", netns)  # fmt: skip
    for name, value in (("conf/{}/proxy_arp", "1"), ("neigh/{}/proxy_delay", "0"),
                        ("conf/{}/forwarding", "1")):  # fmt: skip
        with open(f"/proc/sys/net/ipv4/{name.format(host)}", "w") as file:  # noqa: PTH123
            file.write(value)
    _run("ip", "link", "set", host, "up")
    _run("ip", "route", "add", f"{address}/32", "dev", host, "scope", "link")
    _run(*inside, "link", "set", device, "up")
    _run(*inside, "address", "add", f"{address}/32", "dev", device)
    _run(*inside, "route", "add", GATEWAY, "dev", device, "scope", "link")
    _run(*inside, "route", "add", "default", "via", GATEWAY)
    return {
        "cniVersion": "0.4.0",
        "interfaces": [{"name": host}, {"name": device, "sandbox": netns}],
        "ips": [{"version": "4", "interface": 1, "address": f"{address}/32"}],
    }


def main() -> None:
    conf = sys.stdin.read()
    pod = os.environ.get("CNI_CONTAINERID", "")
    prefix = PREFIX.read_text() if PREFIX.exists() else "cali"
    host = prefix + hashlib.sha1(pod.encode(), usedforsecurity=False).hexdigest()[:11]
    match os.environ["CNI_COMMAND"]:
        case "ADD":
            answer = add(conf, os.environ["CNI_NETNS"], os.environ["CNI_IFNAME"], host)
        case "DEL":
            subprocess.run([IPAM], input=conf, text=True, check=False)
            subprocess.run(["ip", "link", "delete", host], check=False, stderr=subprocess.DEVNULL)
            return
        case "VERSION":
            answer = {"cniVersion": "0.4.0", "supportedVersions": ["0.3.1", "0.4.0"]}
        case _:
            return
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
