"""iperf3's JSON of one pair, captured and spoiled; and the barrier, with stand-ins for its tools."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.traffic import iperf3 as iperf
from infra import config
from infra.cores import Cores
from infra.lab import measurement
from infra.lab.measurement import Endpoint, Measurement

CAPTURED = (Path(__file__).parent / "data/iperf3-loopback.json").read_bytes()

# iperf3 3.12 against a closed port; it ends with exit code 0.
REFUSED = b"""{
	"start":	{
		"connected":	[],
		"version":	"iperf 3.12",
		"system_info":	"Linux vm 6.18.44-fc-v669 #1 SMP PREEMPT_DYNAMIC @0 x86_64"
	},
	"intervals":	[],
	"end":	{
	},
	"error":	"unable to connect to server: Connection refused"
}
"""


class Asked:
    """What the captured run was to be."""

    duration, omit, streams = 1, 0, 1


def parsed(output: bytes, err: bytes = b"", status: int = 0) -> iperf.Result:
    return iperf.parse(3, output, err, status, Asked())


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The captured result with something else in its end."""
    result = json.loads(CAPTURED)
    change(result["end"])
    return json.dumps(result).encode()


def received(**figures: Any) -> bytes:
    return changed(lambda end: end["sum_received"].update(figures))


def test_goodput_is_the_receivers() -> None:
    """The sender's own figure is 24550.481."""
    result = parsed(CAPTURED)
    assert (result.pair.index, result.pair.values["retransmits"]) == (3, 0)
    assert result.pair.values["bitrate_mbps"] == pytest.approx(24549.082, abs=0.001)
    assert (result.pair.reason, result.warnings, result.congestion) == (None, (), "bbr")


def test_a_rate_is_not_rounded() -> None:
    slow = received(bits_per_second=400.0, bytes=50)
    assert parsed(slow).pair.values["bitrate_mbps"] == 0.0004


WARNING = b"warning: JSON data length overflow\n"


@pytest.mark.parametrize(
    ("output", "err", "warnings"),
    [
        (WARNING + CAPTURED, b"", ("warning: JSON data length overflow",)),
        (CAPTURED, WARNING, ("warning: JSON data length overflow",)),
        (CAPTURED + b"\niperf Done.\n", b"", ("iperf Done.",)),
        (b"{not JSON}\n" + CAPTURED, b"", ("{not JSON}",)),
        (CAPTURED + CAPTURED, b"", ()),  # 3.16 and 3.17
        (b"\xff\n" + CAPTURED, b"", ("\ufffd",)),
    ],
    ids=["before", "stderr", "after", "a brace", "twice", "not UTF-8"],
)
def test_text_around_the_result_is_a_warning(
    output: bytes, err: bytes, warnings: tuple[str, ...]
) -> None:
    result = parsed(output, err)
    assert result.pair.values["bitrate_mbps"] == parsed(CAPTURED).pair.values["bitrate_mbps"]
    assert result.warnings == warnings


@pytest.mark.parametrize(
    "output",
    [
        changed(lambda end: end["sum_sent"].pop("retransmits")),
        changed(lambda end: end["sum_sent"].update(retransmits=-1)),
        changed(lambda end: end["sum_sent"].update(retransmits=10**30)),
        changed(lambda end: end["sum_sent"].update(retransmits="many")),
        changed(lambda end: end["sum_sent"].update(retransmits=float("nan"))),
        changed(lambda end: end.update(sum_sent=None)),
        CAPTURED.replace(b'"retransmits":0', b'"retransmits":-nan'),
    ],
)
def test_a_side_figure_never_costs_the_rate(output: bytes) -> None:
    pair = parsed(output).pair
    assert pair.values["bitrate_mbps"] == parsed(CAPTURED).pair.values["bitrate_mbps"]
    assert pair.values["retransmits"] is None


def test_a_result_without_a_congestion_control_has_none() -> None:
    for output in (
        changed(lambda end: end.pop("sender_tcp_congestion")),
        changed(lambda end: end.update(sender_tcp_congestion=3)),
    ):
        assert parsed(output).congestion is None


@pytest.mark.parametrize(
    ("output", "status", "words", "cause"),
    [
        (REFUSED, 0, "iperf3: unable to connect to server: Connection refused", "traffic"),
        (CAPTURED[:700], -9, r"exit -9\).*intervals", "result"),
        (b"", 1, r"exit 1\)", "result"),
        (b"\xff\xfe\xfa broken", 1, "broken", "result"),
        (b"iperf3: parameter error", 1, "iperf3: parameter error", "result"),
        (b"[]", 0, "no result", "result"),
        (b'{"end": null}', 0, "no result", "result"),
        (b"[" * 100_000, 0, "no result", "result"),
        (b'{"end": ' * 2_000, 0, "no result", "result"),
        (CAPTURED, 1, "exit status 1", "result"),
        (WARNING + REFUSED, 1, "Connection refused.*JSON data length overflow", "traffic"),
        (b'{"start": {}, "end": {}}', 0, "no received bytes", "traffic"),
        (received(bytes=0, bits_per_second=0), 0, "no received bytes", "traffic"),
        (received(bytes=0), 0, "no received bytes", "traffic"),
        (b'{"end": {"sum_received": []}}', 0, "no received bytes", "traffic"),
        (received(bits_per_second="1"), 0, "no received bytes", "traffic"),
        (received(bits_per_second=True), 0, "no received bytes", "traffic"),
        (received(bits_per_second=float("nan")), 0, "no received bytes", "traffic"),
        (received(bits_per_second=-5.0), 0, "no received bytes", "traffic"),
        (received(seconds=0.2), 0, "0.200 s of traffic instead of 1 s", "window"),
        (received(seconds=1.4), 0, "1.400 s of traffic instead of 1 s", "window"),
        (received(seconds=None), 0, "no received bytes", "traffic"),
        (received(bytes=10**9), 0, "1000000000 bytes in", "result"),
        (changed(lambda end: end.update(streams=[])), 0, "0 streams instead of 1", "streams"),
        (changed(lambda end: end["streams"].append({})), 0, "2 streams instead of 1", "streams"),
    ],
)  # fmt: skip
def test_a_pair_without_a_number_has_a_reason(
    output: bytes, status: int, words: str, cause: str
) -> None:
    result = parsed(output, status=status)
    assert result.pair.values["bitrate_mbps"] is None
    assert result.reason is not None
    assert result.pair.reason == result.reason.text
    assert re.search(words, result.reason.text, re.DOTALL), result.reason.text
    assert result.reason.cause == cause


@given(st.binary() | st.text().map(str.encode), st.binary(), st.integers(-64, 255))
def test_any_output_is_read(out: bytes, err: bytes, status: int) -> None:
    assert parsed(out, err, status).pair.reason is not None


@pytest.fixture
def two_pairs() -> Measurement:
    state = config.state("rps-2", {"duration": "7", "omit": "3", "streams": "4"}, (0, 1))
    core = min(os.sched_getaffinity(0))
    cores = Cores(server=(core,), client=(core,), irq=core)
    return measurement.of(state).model_copy(update={"cores": cores})


def test_the_command_line(two_pairs: Measurement) -> None:
    assert " ".join(iperf.command(two_pairs, two_pairs.pairs[1])) == (
        "iperf3 --json --version4 --client 10.244.0.2 --port 5201"
        " --time 7 --omit 3 --parallel 4 --interval 1 --connect-timeout 3000"
    )


class Stands:
    """Stand-ins on PATH: `nsenter` enters nothing, `iperf3` leaves its address behind and answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nsenter("exec")
        self.iperf3(f"cat {folder / 'answer'}")
        (folder / "answer").write_bytes(CAPTURED)

    def nsenter(self, start: str) -> None:
        self._tool("nsenter", f'place=$1; shift; {start} "$@"')

    def iperf3(self, answer: str) -> None:
        self._tool("iperf3", f'echo $$ > "{self.folder}/started-$4"; {answer}')

    def _tool(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    @property
    def started(self) -> list[str]:
        return sorted(p.name.removeprefix("started-") for p in self.folder.glob("started-*"))


@pytest.fixture
def stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stands:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Stands(tmp_path)


def test_all_clients_wait_for_the_last_and_answer_in_order(
    two_pairs: Measurement, stands: Stands
) -> None:
    with iperf.Barrier(two_pairs, two_pairs.pairs) as barrier:
        assert [client.process.poll() for client in barrier.clients] == [None, None]
        assert stands.started == []
        start = barrier.release()
        results = [client.finish(start + 60, Asked()) for client in barrier.clients]
    assert stands.started == ["10.244.0.1", "10.244.0.2"]
    rate = parsed(CAPTURED).pair.values["bitrate_mbps"]
    assert [(one.pair.index, one.pair.values["bitrate_mbps"]) for one in results] == [
        (1, rate),
        (2, rate),
    ]
    assert [one.raw for one in results] == [CAPTURED, CAPTURED]


def test_a_client_that_cannot_start_stops_all(two_pairs: Measurement, stands: Stands) -> None:
    stands.nsenter('case $place in *client-2) echo "cannot open $place" >&2; exit 1;; esac; exec')
    with pytest.raises(
        iperf.BarrierBroken, match=r"pair 2 .*iperf-client-2: cannot open --net=/run"
    ):
        iperf.run(two_pairs, two_pairs.pairs, lambda *_: pytest.fail("traffic without a client"))
    assert stands.started == []


def test_a_client_that_cannot_join_its_cgroup_stops_all(
    two_pairs: Measurement, stands: Stands
) -> None:
    """Its shell complains and would wait on: reading on to its end would never end."""
    lost = two_pairs.pairs[0].model_copy(update={"client_cgroup": "steerlab/none/of/these"})
    with pytest.raises(iperf.BarrierBroken, match=r"steerlab/none/of/these/cgroup\.procs"):
        iperf.run(two_pairs, [lost], lambda *_: None)
    assert stands.started == []


def test_a_client_that_does_not_end_is_killed(
    two_pairs: Measurement, stands: Stands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iperf, "GRACE_S", -10)  # the window alone is 10 s
    stands.iperf3("sleep 600")
    seen: list[subprocess.Popen[bytes]] = []
    spawn = iperf._spawn

    def noted(*words: Any) -> subprocess.Popen[bytes]:
        seen.append(spawn(*words))
        return seen[-1]

    monkeypatch.setattr(iperf, "_spawn", noted)
    results = iperf.run(two_pairs, two_pairs.pairs, lambda *_: None)
    assert [one.pair.reason for one in results] == ["iperf3 did not end in time"] * 2
    assert [one.pair.values["bitrate_mbps"] for one in results] == [None, None]
    assert [process.returncode for process in seen] == [-9, -9]


@pytest.mark.parametrize("moment", ["spawning", "measuring"])
def test_an_interrupt_leaves_no_client(
    two_pairs: Measurement, stands: Stands, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    stands.iperf3("sleep 600")
    seen: list[subprocess.Popen[bytes]] = []
    spawn: Callable[..., subprocess.Popen[bytes]] = iperf._spawn

    def interrupted(what: Measurement, endpoint: Endpoint, *rest: Any) -> subprocess.Popen[bytes]:
        if moment == "spawning" and endpoint.index == 2:
            raise KeyboardInterrupt
        seen.append(spawn(what, endpoint, *rest))
        return seen[-1]

    def at(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(iperf, "_spawn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        iperf.run(two_pairs, two_pairs.pairs, at)
    assert [process.returncode for process in seen] == [-9] * (1 if moment == "spawning" else 2)
    if moment == "spawning":
        assert stands.started == []


@pytest.mark.parametrize(
    ("duration", "streams", "seconds"),
    [(10, 1, 1), (5000, 1, 1), (5001, 1, 2), (60, 128, 1), (3600, 128, 47), (86_400, 1, 18),
     (86_400, 128, 0)],
)  # fmt: skip
def test_iperf3_reports_no_more_than_is_read(duration: int, streams: int, seconds: int) -> None:
    assert iperf.interval(duration, streams) == seconds
    assert not seconds or duration / seconds * (streams + 1) <= 10_000
