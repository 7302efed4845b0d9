"""Traffic `mixed`: which pairs it has, of which kind, and where each of them is started and read."""

from __future__ import annotations

import json

import pytest

from experiments.targets import leads
from infra import config, traffic
from infra.errors import InvalidInput
from infra.lab import measurement
from infra.traffic.mixed import Mixed
from infra.traffic.rr import Rr
from infra.traffic.stream import Stream

STREAM, REQUESTS = Stream(congestion="cubic", rate="300M"), Rr(size=100)


def test_each_kind_has_its_options() -> None:
    mixed = traffic.of("mixed:congestion=cubic,rate=300M,size=100")
    assert mixed.kinds == (STREAM, REQUESTS)
    assert traffic.of(str(mixed)) == mixed
    assert mixed.programs == STREAM.programs | REQUESTS.programs
    assert mixed.protocols == ("TCP",)
    assert traffic.of("mixed:protocol=udp").protocols == ("TCP", "UDP")


def test_one_more_pair_runs_beside_any_number_of_others() -> None:
    mixed = Mixed()
    assert mixed.pairs(2) == {1: Stream(), 2: Stream(), 3: Rr()}
    assert mixed.pairs(4, 1) == {1: Stream(), 5: Rr()}
    assert Stream().pairs(4, 2) == {1: Stream(), 2: Stream()}


def test_a_stack_declares_the_pair_and_steers_its_pods() -> None:
    state = config.state("rps-plus-2", {"traffic": "mixed"}, (0, 1))
    what = measurement.of(state)
    assert [(pair.index, pair.address) for pair in what.pairs][-1] == (3, "10.244.0.3")
    assert what.replicas == 2
    pods = {rule["namespace"] for rule in what.plans[0]["rules"] if rule["role"] == "pod"}
    assert len(pods) == 3
    assert json.loads(what.to_stdin())["traffic"] == "mixed"


@pytest.mark.parametrize(("kind", "streams"), [("rr", 2), ("rr:protocol=udp", 128)])
def test_requests_have_one_connection(kind: str, streams: int) -> None:
    values = {"traffic": kind, "streams": str(streams)}
    with pytest.raises(InvalidInput, match=r"streams: traffic rr.* has 1 connection"):
        config.state("rps-2", values, (0, 1))
    assert config.state("rps-2", values | {"traffic": "mixed"}, (0, 1)).streams == streams


def test_images_that_a_kind_needs_are_required() -> None:
    images = {"iperf3": "r/iperf3:1", "steering": "r/steering:1"}
    values = {"target": "kubernetes", "traffic": "mixed", "images": json.dumps(images)}
    with pytest.raises(InvalidInput, match=r"kubernetes\.images: has no rr"):
        config.state("rps-2", values, (0, 1))
    known = values | {"images": json.dumps(images | {"rr": "r/rr:1"})}
    assert config.state("rps-2", known, (0, 1)).images.rr == "r/rr:1"
    assert config.state("rps-2", values | {"traffic": "stream"}, (0, 1)).images.rr is None


def test_clients_with_a_lead_start_so_much_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    started: list[tuple[str, float]] = []
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    clients = [
        (lead, lambda name=name: started.append((name, now[0])))  # type: ignore[misc]
        for name, lead in {"a": 0.0, "b": 1.25, "c": 0.0, "d": 0.5}.items()
    ]
    assert leads.start(clients) == 101.25
    assert started == [("b", 100.0), ("d", 100.75), ("a", 101.25), ("c", 101.25)]
    assert leads.start([]) == 101.25
