"""Traffic `rr` and `mixed` on the lab: sockperf for real, alone and beside streams."""

from __future__ import annotations

from typing import Any

from lab_project import Project, Standing

STACK = "rps-2"
LATENCY = {"p50_us", "p99_us", "p999_us", "requests_per_second"}
FOREIGN = {"foreign-load"}  # a busy machine


def measured(project: Project, *settings: str) -> dict[str, Any]:
    """The last record of an `up`, whose machine may be busy."""
    words = [word for one in (*settings, "runs=1") for word in ("-c", one)]
    project.start("up", "-s", STACK, *words, "--engine", project.engine).communicate(timeout=300)
    record = project.records(f"results/{STACK}")[-1]
    assert set(record["causes"]) <= FOREIGN, record["reasons"]
    return record


def check(pair: dict[str, Any]) -> None:
    values = pair["values"]
    assert values.keys() == LATENCY
    known = [values[name] for name in ("p50_us", "p99_us", "p999_us") if values[name] is not None]
    assert 1 < known[0] < 10_000
    assert known == sorted(known)
    # a closed loop: half of the round trip is all that limits it
    assert values["requests_per_second"] < 1e6 / (2 * pair["latency"][0][1])
    assert dict(pair["latency"])[0.5] == values["p50_us"]


def test_requests_of_both_protocols_and_beside_streams(project: Project) -> None:
    record = measured(project, "traffic=rr", "duration=2", "omit=1")
    assert [pair["kind"] for pair in record["pairs"]] == [None, None]
    assert record["machine"]["versions"].keys() == {"sockperf", "python"}
    for pair in record["pairs"]:
        check(pair)

    servers = {"iperf-server-1", "iperf-server-2"}
    changes = project.preview(STACK, "traffic=rr:protocol=udp", "runs=1").changes
    assert changes.keys() == servers | {"measurement"}
    record = measured(project, "traffic=rr:protocol=udp,size=1000")
    for pair in record["pairs"]:
        check(pair)

    record = measured(project, "traffic=mixed:rate=50M", "lab.path=host", "omit=0")
    first, _, beside = record["pairs"]
    assert [pair["kind"] for pair in record["pairs"]] == ["stream", "stream", "rr"]
    assert (record["replicas"], beside["index"], record["idle_pairs"]) == (2, 3, 0)
    check(beside)
    assert 30 < first["values"]["bitrate_mbps"] < 60
    assert record["machine"]["versions"].keys() == {"iperf3", "sockperf", "python"}


def test_the_windows_of_an_episode_have_the_latency_in_them(project: Project) -> None:
    before = Standing.now()
    project.run(
        "sweep", "--method", "switchback", "--traffic", "mixed:rate=50M",
        "--configurations", "baseline,rps,rfs-plus", "--replicas", "1,2", "--runs", "2", "--seed", "7",
        "--engine", "embedded", "--out", "out",
    )  # fmt: skip
    assert Standing.now() == before
    last = {one["order"]: one for one in sorted(project.records(), key=lambda one: one["attempt"])}
    assert [*sorted(last)] == [*range(12)]
    for record in last.values():
        assert set(record["causes"]) <= FOREIGN, record["reasons"]
        assert (record["method"], record["congestion"]) == ("switchback", "cubic")
        *streams, beside = record["pairs"]
        assert [pair["kind"] for pair in record["pairs"]] == ["stream"] * len(streams) + ["rr"]
        assert len(streams) == record["replicas"]
        assert all(20 < pair["values"]["bitrate_mbps"] < 80 for pair in streams)
        check(beside)
        assert beside["latency"][0][0] == 0
        assert record["machine"]["versions"].keys() == {"iperf3", "sockperf", "python"}


def test_the_pair_beside_the_streams_runs_at_each_count_of_a_sweep(project: Project) -> None:
    before = Standing.now()
    words = (
        "sweep", "--traffic", "mixed:rate=50M", "--configurations", "baseline,rps", "--replicas", "1,2",
        "--runs", "1", "--duration", "2", "--omit", "1", "--seed", "7", "--engine", "embedded", "--out", "out",
        "--json",
    )  # fmt: skip
    project.run(*words)
    assert Standing.now() == before
    last = {one["order"]: one for one in sorted(project.records(), key=lambda one: one["attempt"])}
    assert sorted(record["replicas"] for record in last.values()) == [1, 1, 2, 2]
    for record in last.values():
        assert set(record["causes"]) <= FOREIGN, record["reasons"]
        assert [pair["index"] for pair in record["pairs"]] == [*range(1, record["replicas"] + 1), 3]
        assert record["idle_pairs"] == 2 - record["replicas"]
        check(record["pairs"][-1])
