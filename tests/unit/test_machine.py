"""What a machine says of itself, from captured texts, and interrupts that moved."""

from __future__ import annotations

import gzip
import json
import platform
from pathlib import Path
from typing import Any

import pytest

from agent import procstat
from analysis.schema import Confounders
from experiments.host import machine
from experiments.host.machine import Nic
from infra.config import state as config_of
from infra.lab import measurement

# /proc/interrupts of this project's test machine: virtio0 is the balloon, virtio1 a disk,
# virtio2 eth0, virtio3 a socket to the host, virtio4 its random numbers; then a server's NIC.
INTERRUPTS = """\
           CPU0       CPU1       
 24:          1          0  IO-APIC   5-edge      ACPI:Ged
 31:          0       2740 PCI-MSIX-0000:00:01.0   3-edge      virtio0-stats
 33:          0          0 PCI-MSIX-0000:00:05.0   0-edge      virtio4-config
 34:        235          0 PCI-MSIX-0000:00:05.0   1-edge      virtio4-input
 36:          0    1238190 PCI-MSIX-0000:00:02.0   1-edge      virtio1-req.0
 37:          0          0 PCI-MSIX-0000:00:03.0   0-edge      virtio2-config
 38:          0      35207 PCI-MSIX-0000:00:03.0   1-edge      virtio2-input.0
 39:      26834          0 PCI-MSIX-0000:00:03.0   2-edge      virtio2-output.0
 41:      12584          0 PCI-MSIX-0000:00:04.0   1-edge      virtio3-rx
120:          7     991822 PCI-MSI 524288-edge      ens5-TxRx-0
121:          0          3 PCI-MSI 524289-edge      ens50
NMI:          0          0   Non-maskable interrupts
LOC:    4648452    7200061   Local timer interrupts
ERR:          0
MIS:          0
"""  # noqa: W291 as the kernel prints it

FEATURES = """\
Features for eth0:
rx-checksumming: on [fixed]
tx-checksumming: on
	tx-checksum-ipv4: off [fixed]
	tx-checksum-ip-generic: on
scatter-gather: on
tcp-segmentation-offload: on
	tx-tcp-segmentation: on
generic-segmentation-offload: off [requested on]
generic-receive-offload: off
large-receive-offload: off [fixed]
"""


def nic(*words: str, numbers: tuple[str, ...] = ()) -> Nic:
    return Nic(frozenset(words), frozenset(numbers))


def test_interrupts_of_nics_alone() -> None:
    assert machine.nic_interrupts(INTERRUPTS, [nic("ens5"), nic("virtio2")]) == {
        "37 virtio2-config": [0, 0],
        "38 virtio2-input.0": [0, 35207],
        "39 virtio2-output.0": [26834, 0],
        "120 ens5-TxRx-0": [7, 991822],
    }


# As these drivers name their vectors: a bus address, a name of their own, or nothing to go by.
DRIVERS = """\
            CPU0       CPU2       CPU3
  50:          1          2          3  PCI-MSI 1048576-edge      mlx5_comp0@pci:0000:03:00.0
  51:          4          5          6  PCI-MSI 524289-edge      mlx4-3@0000:81:00.0
  52:          7          8          9  PCI-MSIX-7870:00:00.0    1-edge      mana_q0@pci:7870:00:00.0
  53:         10         11         12  PCI-MSIX-0000:00:04.0    0-edge      gve-ntfy-blk0@pci:0000:00:04.0
  54:         13         14         15  ITS-MSI 65537 Edge      opaque 7
  55:         16         17         18  PCI-MSI 1048577-edge      mlx5_comp0@pci:0000:03:00.1
  56:         19         20         21  ITS-MSI 65538 Edge
"""


@pytest.mark.parametrize(
    ("known", "found"),
    [
        (nic("ib0", "0000:03:00.0"), {"50 mlx5_comp0@pci:0000:03:00.0": [1, 0, 2, 3]}),
        (nic("ib0", "0000:81:00.0"), {"51 mlx4-3@0000:81:00.0": [4, 0, 5, 6]}),
        (nic("ib0", "7870:00:00.0"), {"52 mana_q0@pci:7870:00:00.0": [7, 0, 8, 9]}),
        (nic("ib0", "0000:00:04.0"), {"53 gve-ntfy-blk0@pci:0000:00:04.0": [10, 0, 11, 12]}),
        (nic("ib0", numbers=("54",)), {"54 7": [13, 0, 14, 15]}),
        (nic("ib0", numbers=("56",)), {"56 Edge": [19, 0, 20, 21]}),
    ],
)
def test_interrupts_by_bus_address_or_number_with_an_offline_core(
    known: Nic, found: dict[str, list[int]]
) -> None:
    """CPU1 is offline: a row's second number is CPU2's."""
    assert machine.nic_interrupts(DRIVERS, [known]) == found


def test_a_nic_is_known_by_its_bus_and_its_vectors(tmp_path: Path) -> None:
    """Two NICs as sysfs has them: virtio with its vectors at the parent, PCI with its own."""
    for device, place, bus in (
        ("eth0", "pci0000:00/0000:00:03.0/virtio2", "0000:00:03.0"),
        ("ib0", "pci0000:00/0000:00:1c.0/0000:03:00.0", "0000:00:1c.0/0000:03:00.0"),
    ):
        there = tmp_path / "sys/devices" / place
        (there / "net" / device).mkdir(parents=True)
        (there / "net" / device / "device").symlink_to("../..")
        vectors = tmp_path / "sys/devices/pci0000:00" / bus / "msi_irqs"
        vectors.mkdir()
        (vectors / ("38" if device == "eth0" else "54")).write_text("msix\n")
        (tmp_path / "sys/class/net").mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys/class/net" / device).symlink_to(there / "net" / device)
    files = procstat.read_files(machine.CONFOUNDERS, tmp_path)
    assert machine.nics_in(files) == {
        "eth0": nic("eth0", "virtio2", "0000:00:03.0", numbers=("38",)),
        "ib0": nic("ib0", "0000:03:00.0", numbers=("54",)),
    }


def test_a_machine_with_one_core_and_no_nic_has_no_such_lines() -> None:
    text = "           CPU0\n 24:          1  IO-APIC   5-edge      ACPI:Ged\nERR:          0\n"
    assert machine.nic_interrupts(text, []) == {}


@pytest.mark.parametrize(
    ("after", "cores"),
    [
        ([1_000_000, 0], None),  # it stayed
        ([1_000_000, 100], None),  # a stray one
        ([1_000_000, 101], "[0, 1]"),
    ],
)
def test_an_interrupt_that_moved_is_a_warning(after: list[int], cores: str | None) -> None:
    warnings = machine.moved_interrupts(
        Confounders(nic_interrupts={"38 virtio2-input.0": [500, 0]}),
        Confounders(nic_interrupts={"38 virtio2-input.0": after, "40 new": [900, 900]}),
    )
    expected = f"interrupt 38 virtio2-input.0 moved between cores {cores} during the run"
    assert warnings == ([] if cores is None else [expected])


def test_a_nic_that_is_gone_has_not_moved() -> None:
    before = Confounders(nic_interrupts={"38 virtio2-input.0": [500, 0]})
    assert machine.moved_interrupts(before, Confounders()) == []


def test_offloads_that_matter() -> None:
    assert machine.offloads(FEATURES) == {
        "rx-checksumming": True,
        "tx-checksum-ip-generic": True,
        "tcp-segmentation-offload": True,
        "generic-segmentation-offload": False,
        "generic-receive-offload": False,
    }
    assert machine.offloads("") == {}


GRAVITON2 = """\
processor\t: 0
BogoMIPS\t: 243.75
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1

processor\t: 1
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1
"""


@pytest.mark.parametrize(
    ("text", "cpu"),
    [
        ("processor\t: 0\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n", "AMD EPYC"),
        ("processor\t: 0\ncpu\t\t: POWER9, altivec supported\n", "POWER9, altivec supported"),
        ("processor\t: 0\nhart\t: 1\nuarch\t: sifive,u74-mc\n", "sifive,u74-mc"),
        (GRAVITON2, "aarch64 implementer 0x41 part 0xd0c revision 1"),
        (GRAVITON2.replace("0xd0c", "0xd4f"), "aarch64 implementer 0x41 part 0xd4f revision 1"),
        ("processor\t: 0\nBogoMIPS\t: 100.00\n", "aarch64"),
        ("", "aarch64"),
    ],
)  # fmt: skip
def test_the_cpu_is_named_by_the_nodes_own_words(text: str, cpu: str) -> None:
    assert machine.cpu_model(text, "aarch64") == cpu


def test_unlike_cores_of_one_machine_are_all_named() -> None:
    little = GRAVITON2.partition("\n\n")[0].replace("0xd0c", "0xd05")
    assert machine.cpu_model(f"{little}\n\n{GRAVITON2}", "aarch64") == (
        "aarch64 implementer 0x41 part 0xd05 revision 1 and implementer 0x41 part 0xd0c revision 1"
    )


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc and a /sys with one NIC, and what is no NIC beside it."""
    for name, text in {
        "proc/interrupts": INTERRUPTS,
        "proc/12/comm": "irqbalance\n",
        "proc/sys/net/core/rps_default_mask": "0\n",
        "proc/cpuinfo": "model name\t: AMD EPYC\n",
        "sys/class/net/ens5/queues/tx-0/xps_cpus": "1\n",
        "sys/class/net/ens5/queues/tx-1/xps_cpus": "2\n",
        "sys/class/net/ens5/device/vendor": "0x1d0f\n",
        "sys/class/net/lo/queues/tx-0/xps_cpus": "0\n",
        "sys/class/net/bonding_masters": "",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "SYS", tmp_path / "sys")
    return tmp_path


def test_confounders_of_a_server(tree: Path) -> None:
    seen = machine.confounders()
    assert "120 ens5-TxRx-0" in seen.nic_interrupts
    assert seen.irqbalance is True
    assert seen.rps_default_mask == "0"
    assert seen.xps == {"ens5/tx-0": "1", "ens5/tx-1": "2"}
    assert seen.governor == "performance"

    (tree / "proc/12/comm").write_text("iperf3\n")
    (tree / "proc/sys/net/core/rps_default_mask").unlink()  # as before Linux 6.3
    (tree / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").unlink()
    bare = machine.confounders()
    assert (bare.irqbalance, bare.rps_default_mask, bare.governor) == (False, None, None)


def test_processes_that_end_or_have_strange_names_while_they_are_listed(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "proc/11").mkdir()
    (tree / "proc/11/comm").write_bytes(b"\xff\xfe\n")
    listed = Path.glob

    def with_one_that_ended(self: Path, pattern: str) -> list[Path]:
        return [self / "10/comm", *sorted(listed(self, pattern))]

    monkeypatch.setattr(Path, "glob", with_one_that_ended)
    assert machine.confounders().irqbalance is True


def test_a_process_that_ends_between_two_looks_is_not_irqbalance(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, comm = Path.read_text, tree / "proc/12/comm"
    looks = 0

    def once(self: Path, *words: Any, **options: Any) -> str:
        nonlocal looks
        if self == comm:
            looks += 1
            if looks > 1:
                raise ProcessLookupError(3, "No such process")
        return read(self, *words, **options)

    monkeypatch.setattr(Path, "read_text", once)
    assert machine.confounders().irqbalance is True


@pytest.mark.parametrize(
    ("config", "exact"),
    [("CONFIG_IRQ_TIME_ACCOUNTING=y\n", True), ("# nothing of it\n", False), (None, None)],
)
def test_the_machine_of_a_lab(
    tree: Path, monkeypatch: pytest.MonkeyPatch, config: str | None, exact: bool | None
) -> None:
    if config:
        (tree / "proc/config.gz").write_bytes(gzip.compress(config.encode()))
    said = {
        "files": {
            "/proc/cpuinfo": "processor\t: 0\nmodel name\t: AMD EPYC\n",
            "/proc/sys/kernel/osrelease": "0.0-none\n",
            "/sys/devices/system/cpu/online": "0,2-3\n",
            "/sys/class/net/lo/mtu": "65536\n",
            "/sys/class/net/eth1/mtu": "1500\n",
            "/sys/class/net/vxlan.calico/mtu": "1450\n",
            "/sys/class/net/eth1/queues/rx-0": "rx-0",
            "/sys/class/net/eth1/queues/rx-1": "rx-1",
            "/sys/class/net/vxlan.calico/queues/rx-0": "rx-0",
        },
        "commands": {
            "uname -m": "x86_64\n",
            "ethtool --show-features eth1": FEATURES,
            "ethtool --show-features vxlan.calico": "",
        },
    }
    answers = {"ip netns": json.dumps(said), "iperf3 --version": "iperf 3.12 x"}
    monkeypatch.setattr(machine, "_output", lambda *words: answers[" ".join(words[:2])])
    monkeypatch.setattr(platform, "release", lambda: "0.0-none")
    seen = machine.describe(measurement.of(config_of("rps-2", {}, (0, 1))))
    assert (seen.kernel, seen.cpu, seen.cores) == ("0.0-none", "AMD EPYC", 3)
    assert seen.irq_time_accounting is exact
    assert seen.mtu == {"eth1": 1500, "vxlan.calico": 1450}
    assert seen.queues == {"eth1": 2, "vxlan.calico": 1}
    assert seen.offloads["eth1"]["tcp-segmentation-offload"] is True
    assert seen.versions["iperf3"] == "3.12"
    assert (seen.server_cores, seen.client_cores, seen.irq_core) == ([0, 1], [1], 0)
    assert (seen.form, seen.nic_queues) == ("study", 1)
    other = {"lab.form": "stock", "lab.queues": "2"}
    seen = machine.describe(measurement.of(config_of("rps-2", other, (0, 1))))
    assert (seen.form, seen.nic_queues) == ("stock", 2)
