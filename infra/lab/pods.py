"""The pods of one pair and their server: two commands for each pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from shlex import join, quote

import pulumi

from agent.values import as_list
from infra.lab import quota
from infra.lab.layout import CGROUPS, GATEWAY, OVERLAY_MTU, Pair, Pod, netns
from infra.lab.script import (
    create_script,
    delete_script,
    ip_batch,
    lab_command,
    remove_link,
    remove_namespace,
    settings,
)
from infra.traffic.contract import Kind, Protocol

# The state of a socket that waits for clients in /proc/net/tcp and /proc/net/udp.
_LISTENS: Mapping[Protocol, str] = {"TCP": "0A", "UDP": "07"}


class PodPair(pulumi.ComponentResource):
    """A server pod and a client pod, and the traffic's server in the first.

    Where the path is `host` there are no pods, only the server on its node.
    """

    def __init__(
        self,
        pair: Pair,
        kind: Kind,
        *,
        cores: Sequence[int],
        limit: str,
        stands_on: Sequence[pulumi.Input[str]],
        parent: pulumi.Resource,
    ) -> None:
        super().__init__(
            "steerlab:lab:Pair", f"pair-{pair.index}", None, pulumi.ResourceOptions(parent=parent)
        )
        self.pods = None if pair.host else self._pods(pair, limit, stands_on)
        undo = stop_server(pair)
        start = _start(pair, kind, cores, limit)
        self.server = lab_command(
            f"iperf-server-{pair.index}",
            create=create_script(start, undo, {"process": pair.pidfile}),
            delete=delete_script(undo),
            triggers=stands_on if self.pods is None else [self.pods.id],
            parent=self,
        )
        self.register_outputs({})

    def _pods(
        self, pair: Pair, limit: str, stands_on: Sequence[pulumi.Input[str]]
    ) -> pulumi.CustomResource:
        both = (pair.server, pair.client)
        remove = remove_pods(pair)
        veths = [remove_link(pod.node.namespace, pod.veth) for pod in both]
        stands = {pod.namespace: ["eth0"] for pod in both}
        build = _bring_up(both)
        if limit:
            build += [line for pod in both for line in quota.limit(pod, limit)]
        return lab_command(
            f"pods-{pair.index}",
            # the kernel removes a deleted namespace's veths late: they would collide with new ones
            create=create_script(build, veths + remove, {"namespaces": stands}),
            delete=delete_script(remove),
            triggers=stands_on,
            parent=self,
        )


def _bring_up(both: Sequence[Pod]) -> list[str]:
    """Namespaces, their settings, and then the devices, which inherit these."""
    return [
        ip_batch(f"netns add {pod.namespace}" for pod in both),
        *(settings(pod.namespace, {}) for pod in both),
        ip_batch(
            f"link add {pod.veth} netns {pod.node.namespace} mtu {OVERLAY_MTU} type veth"
            f" peer name eth0 netns {pod.namespace} mtu {OVERLAY_MTU}"
            for pod in both
        ),
        *(line for pod in both for line in _connect(pod)),
    ]


def _connect(pod: Pod) -> list[str]:
    return [
        ip_batch(
            [
                "link set lo up",
                f"addr add {pod.address}/32 dev eth0",
                "link set eth0 up",
                f"route add {GATEWAY} dev eth0 scope link",
                f"route add default via {GATEWAY} dev eth0",
            ],
            pod.namespace,
        ),
        ip_batch(
            [
                f"link set {pod.veth} up",
                f"route add {pod.address}/32 dev {pod.veth} scope link",
            ],
            pod.node.namespace,
        ),
    ]


def remove_pods(pair: Pair) -> list[str]:
    """Lines that remove a pair's pods and CPU quotas, if they exist."""
    lines = []
    for pod in (pair.server, pair.client):
        lines.append(remove_namespace(pod.namespace))
        lines += quota.remove(pod)
    return lines


def _start(pair: Pair, kind: Kind, cores: Sequence[int], limit: str) -> list[str]:
    """Start the server detached; its shell writes pid and start time before it becomes the server."""
    pidfile = pair.pidfile
    folder = pidfile.rsplit("/", 1)[0]
    enter = ""
    if limit and not pair.host:
        v1, v2 = (f"{root}/{pair.server.cgroup}" for root in CGROUPS)
        enter = f"for g in {v1} {v2}; do [ ! -e $g ] || echo $$ > $g/cgroup.procs; done; "
    become = (
        f'{enter}umask 077; echo "$$ $(cut -d" " -f22 /proc/$$/stat)" > {pidfile}; '
        f"exec {join(kind.server(pair.port))}"
    )
    protocol = kind.protocols[0]
    listening = f"00000000:{pair.port:04X} 00000000:0000 {_LISTENS[protocol]}"
    return [
        # the claim has made the folder above private
        f"[ -d {folder} ] || mkdir -p -m 0700 {folder}",
        f"setsid nsenter --net={netns(pair.server_namespace)}"
        f" taskset --cpu-list {','.join(map(str, cores))}"
        f" sh -c {quote(become)} </dev/null >/dev/null 2>&1 &",
        "tries=0",
        f"until read -r pid start 2>/dev/null <{pidfile}"
        f" && grep -q '{listening}' /proc/$pid/net/{protocol.lower()} 2>/dev/null; do",
        "  tries=$((tries + 1))",
        "  if [ $tries -gt 250 ]; then",
        f"    echo '{next(iter(kind.tools))} does not listen on port {pair.port} of {pair.server_namespace}' >&2",
        "    exit 1",
        "  fi",
        "  sleep 0.02",
        "done",
        # sched_setaffinity leaves out CPUs that the process may not use
        'while read -r key bound && [ "$key" != Cpus_allowed_list: ]; do :; done </proc/$pid/status',
        f'if [ "$bound" != {as_list(cores)} ]; then',
        f'  echo "the server of pair {pair.index} may use CPUs $bound, not {as_list(cores)}: the'
        ' cpuset of this process is narrower" >&2',
        "  exit 1",
        "fi",
    ]


def stop_server(pair: Pair) -> list[str]:
    """End the recorded server, if it still is that process, and wait until it has ended."""
    pidfile = pair.pidfile
    return [
        f"pid= start= tries=0; [ ! -e {pidfile} ] || read -r pid start <{pidfile} || true",
        'while [ -n "$start" ] && read -r stat 2>/dev/null </proc/$pid/stat; do',
        # fields 3 and 22 of proc_pid_stat(5): the state and the start time
        "  set -- $stat",
        '  if [ "$3" = Z ] || [ "${22}" != "$start" ]; then break; fi',
        '  if [ $tries -lt 500 ]; then kill "$pid"; else kill -KILL "$pid"; fi 2>/dev/null || true',
        "  tries=$((tries + 1)); sleep 0.01",
        "done",
        f"[ ! -e {pidfile} ] || rm -f {pidfile}",
    ]
