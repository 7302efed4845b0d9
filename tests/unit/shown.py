"""What README and docs show to be typed, and how each command is tried.

Every command is run as it is shown, or, where that would take hours or names something that only
its reader has, as the words beside it. `None`: as shown.
"""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

_PROGRAM = r"(\./steerlab|docker/build|kubectl|sudo -E pulumi|pulumi|python3|\S*\.venv/bin/python)"
_COMMAND = re.compile(rf"(?:^|&& |; )((?:[A-Z]+=\$\()?{_PROGRAM})( [^;&]*|$)")

# One state's seconds, and no more of a sweep than an episode, or some runs of one second.
SHORT = "-c duration=1 -c omit=0"
FEW = "--max-time 5s"
SOME = f"--duration 1 --omit 0 {FEW}"
BRIEF = "--minutes 0.35"
ONLY = "--nic stlb0 --overlay none --no-pods"

# In this order, in one folder; the results and the raw text that they name are made before.
LAB: dict[str, str | None] = {
    "./steerlab doctor": None,
    "./steerlab sweep --plan": None,
    "./steerlab sweep --quick": f"./steerlab sweep --quick --out results/quick {FEW}",
    "./steerlab sweep --resume --out results/sweep-20261123-101500": (
        "./steerlab sweep --resume --out results/quick --max-time 5s"
    ),
    "./steerlab sweep --resume --out DIR": (
        "./steerlab sweep --resume --out results/quick --max-time 5s"
    ),
    "./steerlab sweep --matrix study": f"./steerlab sweep --matrix study {SOME}",
    "./steerlab sweep --matrix study --max-time 8h": (
        f"./steerlab sweep --matrix study --max-time 8h --out results/again {SOME}"
    ),
    "./steerlab sweep --traffic udp:rate=500M": (
        f"./steerlab sweep --traffic udp:rate=500M --out results/udp {SOME}"
    ),
    "./steerlab sweep --traffic mixed:rate=300M": (
        f"./steerlab sweep --traffic mixed:rate=300M --out results/mixed {SOME}"
    ),
    "./steerlab sweep --method isolated --duration 10": (
        f"./steerlab sweep --method isolated --out results/isolated {SOME}"
    ),
    "./steerlab sweep --path overlay,host": (
        f"./steerlab sweep --path overlay,host --out results/host {FEW}"
    ),
    "./steerlab sweep --replicas 4 --until-ci 0.05": (
        f"./steerlab sweep --replicas 4 --until-ci 0.05 --out results/until {FEW}"
    ),
    "./steerlab sweep --configurations baseline,rps,rfs,rps-plus,rfs-plus,rps-7,rps-plus-7,pipeline"
    " --replicas 1,2,4,8,16 --runs 10 --duration 3 --omit 1 --seed 20261123": (
        "./steerlab sweep --configurations baseline,rps,rfs,rps-plus,rfs-plus,rps-7,rps-plus-7,"
        f"pipeline --replicas 1,2,4,8,16 --runs 10 --seed 20261123 --out results/all {SOME}"
    ),
    "./steerlab sweep --quick --out results/before": (
        "./steerlab sweep --quick --out results/kernel-a --max-time 5s"
    ),
    "./steerlab sweep --quick --out results/after": (
        "./steerlab sweep --quick --out results/kernel-b --max-time 5s"
    ),
    "./steerlab tune --plan": None,
    "./steerlab tune": f"./steerlab tune --out results/tuned {BRIEF} --configurations rps,rfs",
    "./steerlab tune --resume --out results/tune-20261123-101500": (
        "./steerlab tune --resume --out results/tuned"
    ),
    "./steerlab tune --minutes 10 --limit cpu_s_per_gbit=+10%": (
        f"./steerlab tune --limit cpu_s_per_gbit=+10% --out results/tuned-within {BRIEF}"
        " --configurations rfs"
    ),
    "./steerlab tune --configurations rps,rfs,pipeline": (
        f"./steerlab tune --configurations rps,rfs,pipeline --out results/tuned-mine {BRIEF}"
    ),
    "./steerlab report results/mine --open": "./steerlab report results/mine",
    "./steerlab report results/mine --limit cpu_s_per_gbit=+10%": None,
    "./steerlab report DIR": "./steerlab report results/mine",
    "./steerlab compare results/mine baseline rfs-plus --at 4": None,
    "./steerlab compare results/before rfs rfs --to results/after --force": None,
    "./steerlab compare results/before rfs rfs --to results/after --force --limit bitrate_mbps=-5%": None,
    "./steerlab history results/before results/after": None,
    "./steerlab export benchstat results/before --out before.txt": None,
    "./steerlab export benchstat results/after --out after.txt": None,
    "./steerlab export bencher results/mine --out bencher.json": None,
    "./steerlab export github results/mine --out github.json": None,
    "./steerlab export junit results/mine --limit cpu_s_per_gbit=+10% --out junit.xml": None,
    "./steerlab export openmetrics results/mine --out steerlab.prom": None,
    "./steerlab import raw-text --out results/study": None,
    "./steerlab report results/study": None,
    "./steerlab import DIR --out results/study": (
        "./steerlab import raw-text --out results/study-again"
    ),
    "./steerlab published raw-text": None,
    "./steerlab published DIR": "./steerlab published raw-text",
    "./steerlab up -s rfs-plus-16": f"./steerlab up -s rfs-plus-16 {SHORT}",
    "./steerlab up -s rfs-plus-16 -c replicas=8": None,
    "./steerlab preview -s rfs-plus-16 -c configuration=rps": None,
    "./steerlab measure -s rfs-plus-16": None,
    "./steerlab up -s STACK": "./steerlab up -s rfs-plus-16",
    "./steerlab up -s STACK -c key=value": "./steerlab up -s rfs-plus-16 -c runs=2",
    "./steerlab destroy -s rfs-plus-16": None,
    "./steerlab destroy -s X": "./steerlab destroy -s rfs-plus-16",
    "./steerlab destroy --lab": None,
    "./steerlab nodes show": None,
    "./steerlab nodes advise": f"./steerlab nodes advise --seconds 1 {ONLY}",
    "./steerlab nodes apply rfs-plus": f"./steerlab nodes apply rfs-plus {ONLY}",
    "./steerlab nodes restore": None,
    "./steerlab nodes restore --owner X": "./steerlab nodes restore --owner rfs-plus-16/server",
    "./steerlab nodes preview rps": f"./steerlab nodes preview rps {ONLY}",
    "./steerlab nodes apply rps": f"./steerlab nodes apply rps {ONLY} && ./steerlab nodes restore",
    "python3 agent show": None,
}

# On the tests' own cluster, with $KUBECONFIG and $IMAGES as a user would have set them.
CLUSTER: dict[str, str | None] = {
    "IMAGES=$(docker/build --repository registry.example/net --push | tail -1)": (
        'IMAGES=$(docker/build --repository "$REGISTRY/net" --push --builder buildah --base "$BASE"'
        ' | tail -1) && printf %s "$IMAGES"'
    ),
    "kubectl label node NODE-A iperf=server": "kubectl label node worker1 iperf=server",
    "kubectl label node NODE-B iperf=client": "kubectl label node worker2 iperf=client",
    "../../.venv/bin/python -m rig kubectl get nodes": (
        'cd "$ROOT/tests/cluster" && PYTHONPATH= "$PYTHON" -m rig kubectl get nodes'
    ),
    './steerlab doctor --target kubernetes -c kubernetes.images="$IMAGES"': None,
    './steerlab sweep --target kubernetes -c kubernetes.images="$IMAGES" --replicas 1,4,16': (
        './steerlab sweep --target kubernetes -c kubernetes.images="$IMAGES" --replicas 1,4,16'
        f" --out results/mine {FEW}"
    ),
    './steerlab sweep --matrix study --target kubernetes -c kubernetes.images="$IMAGES" --pod-cpu-limit 200m': (
        './steerlab sweep --matrix study --target kubernetes -c kubernetes.images="$IMAGES"'
        f" --pod-cpu-limit 200m --out results/study {SOME}"
    ),
    './steerlab up -s rfs-plus-4 -c target=kubernetes -c kubernetes.images="$IMAGES"': (
        f'./steerlab up -s rfs-plus-4 -c target=kubernetes -c kubernetes.images="$IMAGES" {SHORT}'
        " && ./steerlab destroy -s rfs-plus-4"
    ),
    "./steerlab destroy --cluster -s STACK": (
        './steerlab up -s rps-2 -c target=kubernetes -c kubernetes.images="$IMAGES" -c runs=0'
        " && ./steerlab destroy --cluster -s rps-2"
    ),
}

# on a node that the tests' cluster has, with an image that its nodes have
_FLEET = "--selector kubernetes.io/hostname=worker1"
_IMAGE = "--image steerlab/steering:1"
CLUSTER |= {
    "./steerlab nodes rollout rps --selector pool=edge --image IMAGE --plan": (
        f"./steerlab nodes rollout rps {_FLEET} {_IMAGE} --plan"
    ),
    "./steerlab nodes rollout rps --selector pool=edge --image IMAGE --gate --batch 10": (
        f"./steerlab nodes rollout rps {_FLEET} {_IMAGE} --gate --seconds 1 --batch 10"
    ),
    "./steerlab nodes restore --selector pool=edge": f"./steerlab nodes restore {_FLEET}",
}

# Run by another test: it holds what these do at more length, or needs what is optional.
ELSEWHERE = {
    "docker/build": "unit/test_docker_build.py",
    "docker/build --save DIR": "cluster/images.py",
    "docker/build --load kind": "unit/test_docker_build.py",
    './steerlab up -s rfs-plus-4 -c target=kubernetes -c kubernetes.images="$IMAGES" -c kubernetes.nodeAccess=ssh'
    """ -c kubernetes.ssh='{"user": "root", "identityFile": "/home/me/.ssh/id_ed25519"}'""": (
        "cluster/test_ssh.py"
    ),
    "kubectl auth can-i --list --as=system:serviceaccount:NAMESPACE:ACCOUNT": (
        "cluster/test_manifests.py"
    ),
    './steerlab doctor --target kubernetes -c kubernetes.images="$IMAGES" -c kubernetes.namespace=team': (
        "cluster/test_operator.py"
    ),
    './steerlab up -s rfs-plus-4 -c target=kubernetes -c kubernetes.images="$IMAGES"'
    " -c kubernetes.namespace=team": "cluster/test_operator.py",
    "./steerlab destroy --cluster -s STACK -c kubernetes.namespace=team": "cluster/test_operator.py",
    "./steerlab destroy -s rfs-plus-4": "cluster/test_operator.py",
    "kubectl config use-context": "cluster/test_operator.py",
    "../../.venv/bin/python -m rig up": "cluster/test_down.py",
    "../../.venv/bin/python -m rig down": "cluster/test_down.py",
    "./steerlab nodes apply rfs-plus --persist": "lab/test_persist.py",
    "pulumi stack select --create rfs-plus-16": "lab/test_pulumi_cli.py",
    "sudo -E pulumi up": "lab/test_pulumi_cli.py",
    "pulumi config set key value": "lab/test_pulumi_cli.py",
    "pulumi up": "lab/test_pulumi_cli.py",
    "pulumi config set --path lab.path host": "lab/test_pulumi_cli.py",
    "pulumi config set --path kubernetes.context NAME": "lab/test_pulumi_cli.py",
}

# Not run by a test: what runs the tests, and what fetches an optional program from elsewhere.
NOT_RUN = {
    "./steerlab test",
    "./steerlab test --cluster",
    "./steerlab test --long",
    ".venv/bin/python -m pytest tests/unit -k plan",
    ".venv/bin/python -m coverage run -m pytest tests/unit tests/lab/test_steer_devices.py",
    ".venv/bin/python -m coverage combine",
    ".venv/bin/python -m coverage report",
    "./steerlab setup --pulumi",
    # they measure for minutes or hours
    *(target.command for target in TARGETS),
}


def commands() -> dict[str, str]:
    """Every command that a page shows, in a block or between backquotes, and that page's name."""
    found: dict[str, str] = {}
    for page in PAGES:
        text = re.sub(r"\\\n *", "", page.read_text())
        blocks = re.findall(r"^    (.*)$", text, re.MULTILINE) + re.findall(r"`([^`\n]+)`", text)
        for line in blocks:
            for program, _, words in _COMMAND.findall(re.sub(r"\s+#.*", "", line)):
                found.setdefault((program + words).strip(), page.name)
    return found
