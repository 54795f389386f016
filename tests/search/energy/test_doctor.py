"""The doctor turns capabilities into findings with a remedy; diagnosis, calibration and comparison are one call each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from joulefront.search.carbon.zones import intensity_for
from joulefront.search.energy import Ledger, discover
from joulefront.search.energy.calibrate import fit_cpu, spin
from joulefront.search.energy.calibrations import CpuPoint, calibrated_coefficients, cpu_id, save_calibration, with_wall
from joulefront.search.energy.doctor import FAMILIES, calibrate_machine, compare_machine, counters, diagnose_machine, examine
from joulefront.search.energy.sources import cpu_coefficients
from joulefront.search.energy.sources.cpu_coefficients import DEFAULT, Processor, identify, public_coefficients
from joulefront.search.energy.sources.rapl import REMEDY
from joulefront.search.energy.sources.source import Capability

GPU = Capability("gpu:GPU-1a", "nvml", True, "measured", "board", gain_u=0.05)
PACKAGE = Capability("cpu:pkg0", "rapl", True, "measured", "CPU package", gain_u=0.03)
EPYC_4 = Processor("AMD EPYC", 25, 17)
GUESS = Capability("cpu", "cpu_time", True, "estimated", "CPU-seconds of this process tree", gain_u=0.5)
WALL = Capability("wall", "wall", True, "measured", "whole machine", gain_u=0.01, counts=False)


def by_subject(diagnosis):
    return {item.subject: item for item in diagnosis.findings}


def test_a_bare_machine_has_a_finding_a_reason_and_a_remedy_for_everything():
    diagnosis = examine(())
    assert [item.subject for item in diagnosis.findings] == [*FAMILIES, "carbon"]
    assert all(item.quality == "absent" and item.reason and item.remedy for item in diagnosis.findings)
    assert "--zone" in by_subject(diagnosis)["carbon"].remedy
    assert "No energy is known by these meters" in diagnosis.verdict


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
    assert {item.source for item in diagnosis.findings if item.counts and item.quality != "absent"} == {"nvml", "rapl"}
    assert "not added" in diagnosis.to_text()
    assert "No energy" in examine([WALL]).verdict


def test_unreadable_counters_name_the_chmod_and_the_udev_rule():
    locked = Capability("cpu:pkg0", "rapl", False, reason="energy_uj is not readable", remedy=REMEDY, needs_root=True)
    finding = by_subject(examine([], [locked], virtual=True))["cpu"]
    assert finding.remedy == REMEDY
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


def calibration():
    points = [CpuPoint(0, 10, 10), CpuPoint(1, 14, 10), CpuPoint(2, 18, 10)]
    return fit_cpu(points, hardware_id=cpu_id(), reference="rapl")


def test_a_diagnosis_of_this_machine_names_its_cpu_and_every_part(tmp_path):
    diagnosis = diagnose_machine("cpu_time", carbon=intensity_for("FR").describe(), folder=tmp_path)
    assert "logical CPUs" in diagnosis.machine["CPU"]
    assert {item.subject for item in diagnosis.findings} >= {"gpu", "cpu", "dram", "wall", "carbon"}
    cpu = next(item for item in diagnosis.findings if item.subject == "cpu" and item.quality == "estimated")
    assert cpu.remedy is not None


def test_a_kept_calibration_is_used_and_ends_the_advice(tmp_path):
    assert calibrated_coefficients(tmp_path) is None
    save_calibration(calibration(), tmp_path)
    known = calibrated_coefficients(tmp_path)
    assert known.core_watts == pytest.approx(4)
    diagnosis = diagnose_machine("cpu_time", folder=tmp_path)
    cpu = next(item for item in diagnosis.findings if item.subject == "cpu" and item.quality == "estimated")
    assert cpu.remedy is None
    assert "calibrated against rapl" in cpu.reason
    with Ledger(discover("cpu_time", calibrations=tmp_path).sources) as ledger, ledger.window("w") as window:
        sum(range(10**6))
    reason = window.record.component("cpu").reason
    assert "4 W per CPU-second above idle (calibrated against rapl" in reason
    assert "--calibrate" not in reason
    asked = discover("cpu_time", cpu_watts=100, calibrations=tmp_path).sources[0].coefficients
    assert "--cpu-watts" in asked.origin  # what the user says goes first


def test_without_a_calibration_the_library_takes_public_tables_or_the_default_and_says_what_helps(tmp_path, monkeypatch):
    (source,) = discover("cpu_time", calibrations=tmp_path).sources
    assert source.coefficients == (public_coefficients(identify()) or DEFAULT)
    monkeypatch.setattr(cpu_coefficients, "identify", lambda: EPYC_4)
    (source,) = discover("cpu_time", calibrations=tmp_path).sources
    assert source.coefficients == public_coefficients(EPYC_4)
    monkeypatch.setattr(cpu_coefficients, "identify", Processor)
    (source,) = discover("cpu_time", calibrations=tmp_path).sources
    assert source.coefficients is DEFAULT
    assert "doctor --calibrate" in source.probe()[0].reason


def test_the_diagnosis_names_origin_year_and_spread_of_the_estimate_and_that_counters_do_not_enter(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu_coefficients, "identify", lambda: EPYC_4)
    diagnosis = diagnose_machine("cpu_time", folder=tmp_path)
    (cpu,) = (item for item in diagnosis.findings if item.subject == "cpu" and item.quality == "estimated")
    for part in ("1.54 W", "EPYC 4th Gen", "Cloud Carbon Footprint 2026", "differ by ±31%", "no public table gives joules"):
        assert part in cpu.reason
    assert cpu.remedy is not None  # a table is still no calibration
    with Ledger(discover("cpu_time", calibrations=tmp_path).sources) as ledger, ledger.window("w") as window:
        sum(range(10**6))
    assert "Cloud Carbon Footprint 2026" in window.record.component("cpu").reason
    save_calibration(calibration(), tmp_path)  # what was measured here goes before a table
    (source,) = discover("cpu_time", calibrations=tmp_path).sources
    assert source.coefficients.core_watts == pytest.approx(4)


@pytest.mark.parametrize(
    ("unit", "paranoid", "said"),
    [
        ("cpu", "2", "could be counted"),
        ("armv8_pmuv3", "-1", "could be counted"),
        ("cpu_core", "4", "may not be counted (sudo sysctl"),
        (None, "2", "cannot be"),
    ],
)
def test_why_counters_cannot_be_read_is_said(tmp_path, monkeypatch, unit, paranoid, said):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    devices = tmp_path / "devices"
    (devices / (unit or "software")).mkdir(parents=True)
    (tmp_path / "sys/kernel").mkdir(parents=True)
    (tmp_path / "sys/kernel/perf_event_paranoid").write_text(paranoid + "\n")
    assert said in counters(devices, tmp_path)
    assert "do not enter" in counters(devices, tmp_path)


def test_calibration_without_a_reference_says_so_and_keeps_nothing(tmp_path):
    with pytest.raises(LookupError, match="the estimate per busy CPU stays"):
        calibrate_machine("cpu_time", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def plug(tmp_path):
    """A plug's log written by a process that knows the machine's true law: 50 W and 6 W per busy CPU."""
    log = tmp_path / "plug.csv"
    code = (
        "import time, sys; from joulefront.search.energy.calibrate import machine_busy_seconds as busy\n"
        "begin = time.time(); file = open(sys.argv[1], 'w', buffering=1); file.write('timestamp,joules\\n')\n"
        "while True:\n    now = time.time(); file.write(f'{now},{50 * (now - begin) + 6 * busy():.6f}\\n'); time.sleep(0.05)\n"
    )
    logger = subprocess.Popen([sys.executable, "-c", code, str(log)])
    try:
        while not log.exists() or log.read_text().count("\n") < 3:
            assert logger.poll() is None
        yield log
    finally:
        logger.kill()
        logger.wait()


needs_stat = pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs /proc/stat")


@pytest.mark.slow
@needs_stat
def test_the_wall_meter_of_this_machine_is_compared_and_its_line_is_kept_for_later_records(plug, tmp_path, capsys):
    found = compare_machine(f"cpu_time,wall={plug}", seconds=1.0, repeats=1, folder=tmp_path / "cache")
    assert [load.name.split(" busy")[0] for load in found.loads][:2] == ["idle", "one"]
    assert all({row.part for row in load.meters} >= {"cpu", "wall"} for load in found.loads)
    printed = capsys.readouterr().err
    assert "leave the machine alone" in printed
    if found.wall is None:
        pytest.skip(f"this machine is too busy to tell loads apart: {found.why_no_line}")
    assert "kept in" in printed
    # The line itself is tested on a clock of our own: here others' work is on the socket and not in our estimate.
    with Ledger(discover("cpu_time", calibrations=tmp_path).sources) as ledger, ledger.window("w") as window:
        spin(0.3)
    record = window.record
    wall = with_wall(record, tmp_path / "cache").component("wall")
    assert wall.quality == "estimated"
    assert wall.joules == pytest.approx(found.wall.line.predict(record.joules / record.seconds).value * record.seconds)
    assert found.wall.to_text() in found.to_text()


@pytest.mark.slow
@needs_stat
def test_this_machine_is_calibrated_against_a_wall_meter_and_the_result_is_kept(plug, tmp_path, capsys):
    try:
        found = calibrate_machine(f"cpu_time,wall={plug}", seconds=1.5, rounds=1, folder=tmp_path / "cache")
    except ValueError as error:
        assert "half a core" in str(error)  # noqa: PT017
        pytest.skip(f"this machine is too busy to tell loads apart: {error}")
    assert found.reference == "wall"
    # Seconds of other people's work come and go inside three short windows: the law is met within a third.
    assert found.core_watts.value == pytest.approx(6, rel=0.35)
    assert calibrated_coefficients(tmp_path / "cache").core_watts == found.core_watts.value
    assert "kept in" in capsys.readouterr().err
    assert "one busy logical CPU" in found.to_text()
    assert found.hardware_id in found.to_json()
