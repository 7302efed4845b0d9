"""Cores: how the two nodes of the lab share a machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import cores
from infra.errors import PrerequisiteMissing

ONLINE = st.lists(st.integers(0, 200), min_size=2, max_size=128, unique=True)


@pytest.mark.parametrize(
    ("online", "server", "client"),
    [
        ([0, 1], (0, 1), (1,)),
        ([0, 1, 2], (0, 1), (2,)),
        ([0, 1, 2, 3], (0, 1), (2, 3)),
        ([0, 1, 2, 3, 4], (0, 1), (2, 3, 4)),
        (range(8), (0, 1, 2, 3), (4, 5, 6, 7)),
        ([2, 5, 9], (2, 5), (9,)),
    ],
)
def test_share(online, server, client):
    shared = cores.share(online)
    assert (shared.server, shared.client, shared.irq) == (server, client, online[0])


@pytest.mark.parametrize("online", [[], [0], [3]])
def test_one_core_has_nowhere_to_steer_to(online):
    with pytest.raises(PrerequisiteMissing, match=f"at least 2 cores.*{len(online)}"):
        cores.share(online)
    assert PrerequisiteMissing.exit_code == 3


@given(ONLINE)
def test_every_core_is_used_and_none_invented(online):
    shared = cores.share(online)
    assert {*shared.server, *shared.client} == set(online)


@given(ONLINE)
def test_the_irq_core_is_the_servers_first_and_never_the_clients(online):
    shared = cores.share(online)
    assert shared.irq == shared.server[0] == min(online)
    assert shared.irq not in shared.client


@given(ONLINE)
def test_the_nodes_are_apart_from_three_cores_on(online):
    shared = cores.share(online)
    assert set(shared.server).isdisjoint(shared.client) == (len(online) >= 3)


@given(ONLINE)
def test_the_server_can_always_steer(online):
    shared = cores.share(online)
    assert len(shared.server) >= 2
    assert abs(len(shared.server) - len(shared.client)) <= 1


@given(ONLINE, st.randoms())
def test_the_order_in_which_cores_are_listed_means_nothing(online, random):
    shuffled = random.sample(online, len(online))
    assert cores.share(shuffled) == cores.share(online)
