"""CPU quotas of pods in cgroup v1 and v2, and the controller that v2 first needs (pure)."""

from __future__ import annotations

from shlex import quote

from infra.lab.layout import CGROUPS, RUN, Pod
from infra.settings import cpu_limit

_PERIOD_US = 100_000
_V1, _V2 = CGROUPS

# Marks that this lab enabled the cpu controller for the machine's control groups.
MADE_CONTROLLER = f"{RUN}/lab/.cpu-controller"
_CONTROL = f"{_V2}/cgroup.subtree_control"


def limit(pod: Pod, text: str) -> list[str]:
    """The lines that set a pod's quota: cpu.cfs_quota_us (v1) or cpu.max (v2)."""
    quota = round(cpu_limit(text) * _PERIOD_US)
    v1, v2 = (f"{root}/{pod.cgroup}" for root in CGROUPS)
    parents = [v2.rsplit("/", depth)[0] for depth in (2, 1)]
    return [
        f"if [ -e {_V1}/cpu.cfs_quota_us ]; then",
        f"  mkdir -p {v1}",
        f"  echo {_PERIOD_US} > {v1}/cpu.cfs_period_us",
        f"  echo {quota} > {v1}/cpu.cfs_quota_us",
        "else",
        f"  mkdir -p {v2}",
        # the mark first: a kill in between leaves a mark without a change, not the reverse
        f"  if ! grep -qw cpu {_CONTROL}; then",
        f"    : > {MADE_CONTROLLER}",
        f"    echo +cpu > {_CONTROL}",
        "  fi",
        *(f"  echo +cpu > {parent}/cgroup.subtree_control" for parent in parents),
        f"  echo '{quota} {_PERIOD_US}' > {v2}/cpu.max",
        "fi",
    ]


def remove(pod: Pod) -> list[str]:
    groups = (f"{root}/{pod.cgroup}" for root in CGROUPS)
    return [f"[ ! -e {group} ] || rmdir {group} 2>/dev/null || true" for group in groups]


def remove_folders(stack: str) -> list[str]:
    """The lines that remove the stack's groups, and the group of all labs, where they are empty."""
    folder = quote(stack)
    return [
        f"rmdir {root}/steerlab/{folder} {root}/steerlab 2>/dev/null || true" for root in CGROUPS
    ]


def release() -> list[str]:
    """The lines that disable the cpu controller, where a lab enabled it and no other group uses it.

    They follow `remove_folders`. The kernel refuses where a child group has enabled the controller for
    its own children, but would drop limits and weights of child groups.
    """
    return [
        f"if [ -e {MADE_CONTROLLER} ]; then",
        "  used=",
        f"  for group in {_V2}/*/; do",
        "    for pair in 'cpu.max:max 100000' cpu.max.burst:0 cpu.weight:100 cpu.idle:0"
        " cpu.uclamp.min:0.00 cpu.uclamp.max:max; do",
        "      file=$group${pair%%:*}",
        '      [ ! -e "$file" ] || [ "$(cat "$file")" = "${pair#*:}" ] || used=$file',
        "    done",
        "  done",
        f'  if [ -n "$used" ] || ! echo -cpu > {_CONTROL}; then',
        f'    echo "{_CONTROL} keeps cpu: ${{used:-another group}} uses it" >&2',
        "  fi",
        f"  rm -f {MADE_CONTROLLER}",
        "fi",
    ]
