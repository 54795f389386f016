"""The doctor turns capabilities into findings with a remedy; it reads nothing itself."""

import json

from joulefront.search.carbon.intensity import intensity_for
from joulefront.search.energy.doctor import FAMILIES, RAPL_REMEDY, examine
from joulefront.search.energy.sources.source import Capability

GPU = Capability("gpu:GPU-1a", "nvml", True, "measured", "board", gain_u=0.05)
PACKAGE = Capability("cpu:pkg0", "rapl", True, "measured", "CPU package", gain_u=0.03)
GUESS = Capability("cpu", "cpu_time", True, "estimated", "CPU-seconds of this process tree", gain_u=0.5)
WALL = Capability("wall", "wall", True, "measured", "whole machine", gain_u=0.01, counts=False)


def by_subject(diagnosis):
    return {item.subject: item for item in diagnosis.findings}


def test_a_bare_machine_has_a_finding_a_reason_and_a_remedy_for_everything():
    diagnosis = examine(())
    assert [item.subject for item in diagnosis.findings] == [*FAMILIES, "carbon"]
    assert all(item.quality == "absent" and item.reason and item.remedy for item in diagnosis.findings)
    assert "--zone" in by_subject(diagnosis)["carbon"].remedy
    assert "No energy is known" in diagnosis.verdict


def test_an_estimate_says_that_it_ranks_by_time_and_how_to_do_better():
    diagnosis = examine([GUESS])
    assert "processor time" in diagnosis.verdict
    assert "--cpu-watts" in by_subject(diagnosis)["cpu"].remedy
    assert by_subject(examine([GUESS], cpu_watts_known=True))["cpu"].remedy is None


def test_measured_and_estimated_parts_are_told_apart():
    assert examine([GPU, GUESS]).verdict == "Measured: GPU; estimated: CPU. Totals are mixed, and marked so."
    assert "ranked" in examine([GPU, PACKAGE]).verdict


def test_the_wall_meter_is_shown_and_never_counted():
    diagnosis = examine([GPU, PACKAGE, WALL])
    assert by_subject(diagnosis)["wall"].quality == "measured"
    assert {item.source for item in diagnosis.counted} == {"nvml", "rapl"}
    assert "not added" in diagnosis.to_text()
    assert "No energy" in examine([WALL]).verdict


def test_unreadable_counters_name_the_chmod_and_the_udev_rule():
    locked = Capability("cpu:pkg0", "rapl", False, reason="energy_uj is not readable", needs_root=True)
    finding = by_subject(examine([], [locked], virtual=True))["cpu"]
    assert finding.remedy == RAPL_REMEDY
    assert "udev" in finding.remedy


def test_a_virtual_machine_is_told_that_its_host_has_the_counters():
    none = Capability("cpu:pkg0", "rapl", False, reason="no powercap folder")
    finding = by_subject(examine([], [none], virtual=True))["cpu"]
    assert "virtual machine" in finding.reason
    assert "wall meter" in finding.remedy


def test_a_sources_own_remedy_is_kept():
    gone = Capability("gpu", "nvml", False, reason="driver mismatch", remedy="reboot")
    assert by_subject(examine([], [gone]))["gpu"].remedy == "reboot"


def test_a_second_gpu_without_a_reading_is_shown_beside_the_first():
    lost = Capability("gpu:GPU-2b", "nvml", False, reason="MIG is on")
    findings = [item for item in examine([GPU], [lost]).findings if item.subject == "gpu"]
    assert [(item.component, item.quality) for item in findings] == [("gpu:GPU-1a", "measured"), ("gpu:GPU-2b", "absent")]


def test_an_estimate_that_was_not_needed_is_no_finding():
    findings = [item for item in examine([PACKAGE], [Capability("cpu", "cpu_time", False, reason="rapl is better")]).findings]
    assert [item.source for item in findings if item.subject == "cpu"] == ["rapl"]


def test_a_component_of_another_family_is_not_lost():
    platform = Capability("platform", "rapl", True, "measured", "whole board", gain_u=0.1)
    assert by_subject(examine([platform]))["platform"].source == "rapl"


def test_carbon_shows_factor_year_and_source():
    finding = by_subject(examine([GPU], carbon=intensity_for("FR").describe()))["carbon"]
    assert "56.04 gCO2e/kWh in FR" in finding.boundary
    assert "2023" in finding.boundary


def test_text_fits_a_terminal_and_json_holds_the_same():
    diagnosis = examine([GPU, GUESS], machine={"cpu": "AMD EPYC", "cores": 2, "board": None})
    text = diagnosis.to_text()
    assert all(len(line) <= 110 for line in text.splitlines())
    assert text.startswith("cpu: AMD EPYC")
    assert "board: " not in text
    data = json.loads(diagnosis.to_json())
    assert data["verdict"] == diagnosis.verdict
    assert [item["subject"] for item in data["findings"]] == [item.subject for item in diagnosis.findings]
