"""What the machine is, who else uses it, and when two machines are the same."""

from __future__ import annotations

import pytest

from joulefront.search.energy.host import HostMonitor, describe, fingerprint

CPUINFO = """processor : 0
model name : Imaginary 9000
physical id : 0
flags : fpu {flag}

processor : 1
model name : Imaginary 9000
physical id : 1
flags : fpu {flag}
"""


@pytest.fixture
def proc(tmp_path):
    folder = tmp_path / "proc"
    folder.mkdir()
    (folder / "cpuinfo").write_text(CPUINFO.format(flag="sse"))
    (folder / "meminfo").write_text("MemTotal:       1024 kB\n")
    return folder


def test_the_machine_is_described_from_what_the_kernel_says(proc, tmp_path):
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    found = describe({"gpu:0": {"name": "Fake"}}, proc=proc, cgroup=tmp_path)
    assert found["cpu_model"] == "Imaginary 9000"
    assert found["sockets"] == 2
    assert found["memory_bytes"] == 1024 * 1024
    assert found["cpu_limit"] == 1.5
    assert not found["virtualised"]
    (proc / "cpuinfo").write_text(CPUINFO.format(flag="hypervisor"))
    assert describe(proc=proc)["virtualised"]


def test_equal_machines_share_an_id_and_others_do_not(proc):
    one = describe({"gpu:GPU-aaaa": {"name": "X", "power_limit_watts": 300.0, "driver": "1"}}, proc=proc)
    same = describe({"gpu:GPU-bbbb": {"name": "X", "power_limit_watts": 300.0, "driver": "2"}}, proc=proc)
    capped = describe({"gpu:GPU-aaaa": {"name": "X", "power_limit_watts": 200.0, "driver": "1"}}, proc=proc)
    assert fingerprint(one) == fingerprint(same)
    assert len({fingerprint(hardware) for hardware in (one, capped, describe(proc=proc))}) == 3


def test_an_older_control_group_limits_the_cpus_too(proc, tmp_path):
    (tmp_path / "cpu").mkdir()
    for name, text in (("quota", "150000"), ("period", "100000")):
        (tmp_path / f"cpu/cpu.cfs_{name}_us").write_text(f"{text}\n")
    assert describe(proc=proc, cgroup=tmp_path)["cpu_limit"] == 1.5
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    assert describe(proc=proc, cgroup=tmp_path)["cpu_limit"] is None


def test_two_kinds_of_arm_processors_are_different_hardware(tmp_path):
    ids = []
    for part in ("0xd0c", "0xd4f", "0xd0c"):
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nCPU implementer\t: 0x41\nCPU variant\t: 0x3\nCPU part\t: {part}\n")
        ids.append(fingerprint(describe(proc=tmp_path)))
    assert ids[0] == ids[2] != ids[1]


def test_a_machine_that_says_nothing_is_described_all_the_same(tmp_path):
    found = describe(proc=tmp_path, cgroup=tmp_path)
    assert found["memory_bytes"] is None
    assert found["logical_cpus"] >= 1


def foreign(monitor, t0_ns, t1_ns):
    return monitor.contended(t0_ns, t1_ns, *monitor.cpu_seconds(t0_ns, t1_ns))


def test_foreign_work_is_what_the_machine_did_beyond_us(tmp_path):
    stat = tmp_path / "stat"
    surroundings = HostMonitor([], proc=tmp_path)
    for second in range(3):
        # user nice system idle iowait irq softirq steal, in hundredths; ten foreign cores' worth
        stat.write_text(f"cpu  {1000 * second} 0 0 5000 100 0 0 700 0 0\n")
        surroundings.sample(10**12 + second * 10**9)
    found = foreign(surroundings, 10**12, 10**12 + 2 * 10**9)
    assert found["foreign_cpu_seconds"] == pytest.approx(20, abs=0.5)
    assert foreign(surroundings, 10**12, 10**12 + 10**6) is None
    stat.unlink()
    blind = HostMonitor([], proc=tmp_path)
    blind.sample(10**12)
    blind.sample(2 * 10**12)
    assert foreign(blind, 10**12, 2 * 10**12) is None


@pytest.mark.parametrize(
    ("cpus", "own", "foreign_cpus", "noted"), [(2, 1.0, 0.09, False), (2, 1.0, 0.12, True), (128, 1.0, 6.0, True), (128, 100.0, 6.0, False)]
)
def test_on_a_large_machine_what_is_large_beside_our_own_work_is_noted(cpus, own, foreign_cpus, noted, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: cpus)
    seconds = 60
    found = HostMonitor([]).contended(0, seconds * 10**9, (own + foreign_cpus) * seconds, own * seconds)
    assert (found is not None) == noted
