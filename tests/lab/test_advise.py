"""`nodes advise` on a lab: what it reads under load and without, and that it writes nothing."""

from __future__ import annotations

from lab_project import Project, Standing

ADVISE = ("nodes", "advise", "--target", "lab", "--json", "--seconds")


def test_the_evidence_of_a_loaded_lab_is_that_of_its_pairs(project: Project) -> None:
    assert "there is no lab" in project.run(*ADVISE, "1", code=3).err
    project.up("baseline-4", "runs=0", "duration=12")
    before = Standing.now()
    quiet = project.run(*ADVISE, "1").json["evidence"]
    assert (quiet["hot_flows"], quiet["hot_pods"]) == (0, 0)
    load = project.start("measure", "-s", "baseline-4")
    found = project.run(*ADVISE, "4").json
    load.communicate(timeout=60)
    assert load.returncode == 0
    assert Standing.now() == before
    evidence = found["evidence"]
    assert evidence["hot_flows"] >= 3  # carry 90 % of what four pairs receive
    assert evidence["hot_pods"] >= 3
    nic, overlay = evidence["devices"]
    assert (nic["device"], nic["rx_queues"], nic["gro"]) == ("eth1", 1, "off")
    assert (overlay["device"], overlay["gro"]) == ("vxlan.calico", "off")
    assert nic["mbit_per_second"] > 100 > quiet["devices"][0]["mbit_per_second"]
    # what undoes the emulation of the lab is no advice
    assert not any(one["name"].startswith("gro-") for one in found["configurations"])
    assert 0 < found["reader_cpu_percent"] < 50
