"""What a busy CPU draws by public tables: each processor gets its own row, and what no table knows stays a guess."""

from __future__ import annotations

import platform
import subprocess
import sys
import types
from pathlib import Path

import pytest

from joulefront.search.energy import Ledger, discover
from joulefront.search.energy.sources import cpu_coefficients
from joulefront.search.energy.sources.cpu_coefficients import (
    DEFAULT,
    SERVERS,
    CpuCoefficients,
    Draw,
    Processor,
    design_watts,
    identify,
    public_coefficients,
    standing,
)
from joulefront.search.energy.sources.cpu_time import CpuTime, estimates_in

XEON = "Intel(R) Xeon(R) Processor @ 2.00GHz"


def cpuinfo(folder: Path, **fields: object) -> Path:
    """Write what Linux would say of two logical CPUs."""
    text = "".join(f"{name.replace('_', ' ')}\t: {value}\n" for name, value in fields.items())
    (folder / "cpuinfo").write_text(f"processor\t: 0\n{text}\nprocessor\t: 1\n{text}\n")
    return folder


@pytest.mark.parametrize(
    ("brand", "family", "model", "stepping", "watts"),
    [
        # Above idle, from output/coefficients-aws-use.csv of ccf-coefficients, March 2026
        ("AMD EPYC 7571", 23, 1, 2, 2.6041666666666665 - 0.8467881944444444),
        ("AMD EPYC 7R32", 23, 49, 0, 1.6929615162037035 - 0.4742621527777777),
        ("AMD EPYC 7R13 Processor", 25, 1, 1, 1.957333519345238 - 0.45562453497023814),
        ("AMD EPYC", 25, 17, 1, 2.282155106707317 - 0.7391482469512195),
        ("AMD EPYC 9754 128-Core Processor", 25, 160, 2, 2.282155106707317 - 0.7391482469512195),
        (XEON, 6, 85, 4, 4.104170352960531 - 0.6129888539040325),
        (XEON, 6, 85, 7, 4.063193520161689 - 0.6902978319127387),
        (XEON, 6, 106, 6, 3.7582031249999996 - 0.766796875),
        (XEON, 6, 143, 8, 4.160476336606656 - 1.0362861003136936),
        (XEON, 6, 207, 2, 4.48203125 - 0.8140104166666666),
        (XEON, 6, 173, 1, 2.5274707237711421 - 0.5815883902616279),
        (XEON, 6, 63, 2, 5.595383986928105 - 1.8573529411764707),
        (XEON, 6, 79, 1, 3.685327540106952 - 0.7128342245989305),
        # The mean over threads of SPECpower's results for EPYC 9965, 9845 and 9755, the same file's data
        ("AMD EPYC 9R45", 26, 2, 1, 1.020),
    ],
)
def test_a_server_draws_what_the_table_says_of_its_generation(brand, family, model, stepping, watts):
    found = public_coefficients(Processor(brand, family, model, stepping))
    assert found.core_watts == pytest.approx(watts, abs=2e-3)
    assert found.idle_watts is None  # whatever is drawn at idle is shown only when it is asked for
    assert 0.28 <= found.gain_u < 0.6


@pytest.mark.parametrize(
    "processor",
    [
        Processor(),
        Processor("AMD EPYC 9999", 27, 1),
        Processor(XEON, 6, 85, 11),  # Cooper Lake
        Processor("AMD Ryzen 7 1700 Eight-Core Processor", 23, 1),  # the CPUID of the first EPYC
        Processor("Intel(R) Core(TM) i7-4770 CPU @ 3.40GHz", 6, 60),
        Processor("AMD EPYC 9654 96-Core Processor", 25, 999),  # by its name it has a design power, but how many threads share it is hidden
    ],
)
def test_a_processor_that_no_table_knows_keeps_the_wide_default(processor, tmp_path, monkeypatch):
    assert public_coefficients(processor) is None
    monkeypatch.setattr(cpu_coefficients, "identify", lambda: processor)
    assert discover("cpu_time", calibrations=tmp_path).sources[0].coefficients is DEFAULT


def test_no_two_rows_claim_one_processor():
    claimed = [(row.family, model, stepping) for row in SERVERS for model in row.models for stepping in row.steppings]
    assert len(claimed) == len(set(claimed))
    assert all(0 < row.idle_watts < row.busy_watts for row in SERVERS)


@pytest.mark.parametrize(
    ("brand", "watts"),
    [
        ("11th Gen Intel(R) Core(TM) i5-1135G7 @ 2.40GHz", 28),
        ("Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz", 15),
        ("AMD Ryzen 7 5800X 8-Core Processor", 105),
        ("Apple M1", 10),
        ("Apple M1 Abacus", None),
        ("", None),
    ],
)
def test_desktops_and_laptops_share_their_design_power_by_exact_name(brand, watts):
    assert design_watts(brand) == watts
    found = public_coefficients(Processor(brand, threads=16))
    assert (found.core_watts if found else None) == (watts and watts / 16)
    if found:
        assert found.gain_u == DEFAULT.gain_u
        assert "CodeCarbon" in found.origin
        assert public_coefficients(Processor(brand)) is None  # a virtual machine does not know how many threads share it


def test_linux_says_which_processor_it_is(tmp_path):
    facts = {"vendor_id": "AuthenticAMD", "cpu_family": 25, "model": 17, "model_name": "AMD EPYC", "stepping": 1, "siblings": 8}
    assert identify(cpuinfo(tmp_path, **facts, flags="fpu hypervisor")) == Processor("AMD EPYC", 25, 17, 1, 0)
    assert identify(cpuinfo(tmp_path, **facts, flags="fpu")).threads == 8
    assert identify(cpuinfo(tmp_path, BogoMIPS="48", Features="fp asimd", CPU_part="0xd0c")) == Processor()  # ARM
    assert public_coefficients(identify(cpuinfo(tmp_path, **{**facts, "model": "unknown"}))) is None


def test_windows_says_it_in_the_registry_and_in_the_name_of_the_processor(tmp_path, monkeypatch):
    class Key:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    asked = types.SimpleNamespace(HKEY_LOCAL_MACHINE=0, OpenKey=lambda *_: Key(), QueryValueEx=lambda *_: ("Intel(R) Xeon(R) Gold", 1))
    monkeypatch.setitem(sys.modules, "winreg", asked)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(platform, "processor", lambda: "Intel64 Family 6 Model 143 Stepping 8, GenuineIntel")
    assert identify(tmp_path) == Processor("Intel(R) Xeon(R) Gold", 6, 143, 8)
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert identify(tmp_path) == Processor("Intel(R) Xeon(R) Gold")


def test_macos_says_its_name_through_sysctl(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: types.SimpleNamespace(stdout="Apple M1\n"))
    assert identify(tmp_path).brand == "Apple M1"

    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", missing)
    assert identify(tmp_path).brand == ""


# -- what is drawn whatever runs ----------------------------------------------------------------------------------------------------------


def test_idle_and_memory_are_shown_only_when_asked_for_and_never_change_the_sum(tmp_path):
    for spec, extra in [("cpu_time", set()), ("cpu_time=idle", {"cpu:idle"}), ("auto,cpu_time=idle+memory", {"cpu:idle", "dram"})]:
        found = discover(spec, calibrations=tmp_path, powercap=tmp_path)
        with Ledger(found.sources) as ledger, ledger.window("w") as window:
            sum(range(10**5))
        known = {part.name: part for part in window.record.components if part.source == "cpu_time"}
        assert set(known) == {"cpu"} | extra
        assert window.record.joules == known["cpu"].joules
        for name in extra:
            assert not known[name].counts
            assert known[name].quality == "estimated"
            assert known[name].joules > 0
            assert "Cloud Carbon Footprint" in known[name].reason


def test_idle_power_is_that_of_the_processor_and_memory_that_of_its_size(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    (idle,) = standing("idle", Processor("AMD EPYC", 25, 17))
    assert idle.watts == pytest.approx(4 * 0.739)
    (idle,) = standing("idle", Processor())
    assert idle.watts == pytest.approx(4 * 0.74)
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 2_000_000, "SC_PAGE_SIZE": 4096}.__getitem__)
    (memory,) = standing("memory", Processor())
    assert memory.watts == pytest.approx(8.192 * 0.392)
    with pytest.raises(ValueError, match=r"=idle\+memory, got 'fans'"):
        standing("fans", Processor())


def test_a_calibrated_idle_power_goes_before_the_tables():
    known = CpuCoefficients(4.0, idle_watts=9.0, origin="calibrated")
    source = CpuTime(known, standing=(Draw("cpu:idle", 1.5, "table", 0.5), Draw("dram", 2.0, "table", 0.5)))
    reasons = {item.component: item.reason for item in source.probe()}
    assert "9 W while the clock runs (calibrated)" in reasons["cpu:idle"]
    assert set(reasons) == {"cpu", "cpu:idle", "dram"} == {reading.component for reading in source.read()}


def test_what_is_named_replaces_what_auto_means_at_its_place(tmp_path, powercap):
    powercap.zone("intel-rapl:0", "package-0", 10**6)
    with powercap.running():
        found = discover("auto,cpu_time=idle,rapl,cpu_time=idle", calibrations=tmp_path, powercap=powercap.root)
    found.close()
    assert [source.name for source in found.sources if source.name != "nvml"] == ["rapl", "cpu_time"]


# -- what identifies an estimate ----------------------------------------------------------------------------------------------------------


def test_a_record_says_by_which_coefficients_its_sum_was_estimated():
    with Ledger([CpuTime(CpuCoefficients(2.8, 7.0, origin="a guess (of somebody)"))]) as ledger, ledger.window("w") as window:
        pass
    record = window.record.to_json()
    assert estimates_in(record) == {"2.8 W per CPU-second above idle"}
    for part in record["components"]:
        part["counts"] = False  # a cross-check bills nothing
    assert estimates_in(record) == set()
    assert estimates_in({}) == estimates_in({"components": None}) == set()
    broken = {"components": [{"counts": True, "source": "cpu_time", "reason": "estimated: many W per CPU-second above idle"}]}
    assert estimates_in(broken) == set()
