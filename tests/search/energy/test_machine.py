"""One call for a diagnosis, one for a calibration, on this machine and on a fake CPU."""

import subprocess
import sys
from pathlib import Path

import pytest

from joulefront.search.energy import Ledger, discover
from joulefront.search.energy.calibration import CpuPoint, fit_cpu, save_calibration
from joulefront.search.energy.carbon import intensity_for
from joulefront.search.energy.machine import calibrate_machine, calibrated_coefficients, cpu_id, diagnose_machine


def calibration():
    points = [CpuPoint(0, 10, 10), CpuPoint(1, 14, 10), CpuPoint(2, 18, 10)]
    return fit_cpu(points, hardware_id=cpu_id(), reference="rapl")


def test_a_diagnosis_of_this_machine_names_its_cpu_and_every_part(tmp_path):
    diagnosis = diagnose_machine("cpu_time", intensity=intensity_for("FR"), folder=tmp_path)
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
    with Ledger(discover("cpu_time", coefficients=known).sources) as ledger, ledger.window("w") as window:
        sum(range(10**6))
    assert "calibrated" in window.record.component("cpu").reason


def test_calibration_without_a_reference_says_so_and_keeps_nothing(tmp_path):
    with pytest.raises(LookupError, match="the default per busy CPU stays"):
        calibrate_machine("cpu_time", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs /proc/stat")
def test_this_machine_is_calibrated_against_a_wall_meter_and_the_result_is_kept(tmp_path, capsys):
    # The meter: a plug's log written by a process that knows the machine's true law, 50 W and 6 W per busy CPU.
    log = tmp_path / "plug.csv"
    code = (
        "import time, sys; from joulefront.search.energy.loads import machine_busy_seconds as busy\n"
        "begin = time.time(); file = open(sys.argv[1], 'w', buffering=1); file.write('timestamp,joules\\n')\n"
        "while True:\n    now = time.time(); file.write(f'{now},{50 * (now - begin) + 6 * busy():.6f}\\n'); time.sleep(0.05)\n"
    )
    logger = subprocess.Popen([sys.executable, "-c", code, str(log)])
    try:
        while not log.exists() or log.read_text().count("\n") < 3:
            assert logger.poll() is None
        found = calibrate_machine(f"cpu_time,wall={log}", seconds=1.5, rounds=1, folder=tmp_path / "cache")
    except ValueError as error:
        assert "half a core" in str(error)  # noqa: PT017
        pytest.skip(f"this machine is too busy to tell loads apart: {error}")
    finally:
        logger.kill()
        logger.wait()
    assert found.reference == "wall"
    # Seconds of other people's work come and go inside three short windows: the law is met within a third.
    assert found.core_watts.value == pytest.approx(6, rel=0.35)
    assert calibrated_coefficients(tmp_path / "cache").core_watts == found.core_watts.value
    assert "kept in" in capsys.readouterr().err
    assert "one busy logical CPU" in found.to_text()
    assert found.hardware_id in found.to_json()
