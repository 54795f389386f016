"""Bars 4 to 6 of the meter table: RAPL counters in a fake powercap tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bars_zeus
from bars_simulated import Lab, Row

from joulefront.search.energy import Ledger
from joulefront.search.energy.sources.rapl import Rapl


def rapl_window(lab: Lab, tree: Any, during: Callable[[Any, Any], None]) -> Any:
    """Measure one window on a powercap tree; `during` moves clock and counters."""
    clock = lab.fakes.HandClock()
    with Ledger([Rapl(tree.root, clock=clock)], interval_seconds=None, clock=clock) as ledger:
        clock.advance(0.5)
        window = ledger.open("w")
        during(clock, ledger)
        return window.close()


def codecarbon_rapl(tree: Any, during: Callable[[], None], *, dram: bool = False) -> float:
    """Return the joules that CodeCarbon reads from the tree between its start and its next measurement."""
    from codecarbon.core.cpu import IntelRAPL
    from codecarbon.core.units import Time

    meter = IntelRAPL(rapl_dir=str(tree.root), rapl_include_dram=dram)
    meter.start()
    during()
    details = meter.get_cpu_details(Time.from_seconds(10))
    return 3.6e6 * sum(value for name, value in details.items() if "Energy" in name)


def bar4(lab: Lab) -> Row:
    """Read right after a wrap."""
    tree = lab.tree("wrap")
    zone = tree.zone("intel-rapl:0", "package-0", uj=tree.range_uj - 400_000_000)

    def wrap(clock: Any, ledger: Any) -> None:
        clock.advance(10)
        tree.write(zone, tree.range_uj + 600_000_000)

    record = rapl_window(lab, tree, wrap)
    tree.write(zone, tree.range_uj - 400_000_000)
    theirs = codecarbon_rapl(tree, lambda: tree.write(zone, tree.range_uj + 600_000_000))
    tree.write(zone, tree.range_uj - 400_000_000)
    zeus = bars_zeus.after_a_wrap(zone, lambda: tree.write(zone, tree.range_uj + 600_000_000))
    return Row(
        4,
        "read right after a RAPL wrap (1000 J)",
        "exact, never negative",
        f"{record.joules:.3f} J",
        abs(record.joules - 1000) < 1e-3,
        f"{theirs:.3f} J",
        zeus,
    )


def bar5(lab: Lab, wraps: int = 3) -> Row:
    """Several wraps in one window."""
    tree = lab.tree("wraps")
    zone = tree.zone("intel-rapl:0", "package-0", uj=1_000_000)
    truth = wraps * (tree.range_uj + 1) * 1e-6 + 5000.0
    steps = 400

    def run(clock: Any, ledger: Any) -> None:
        for k in range(1, steps + 1):
            clock.advance(truth / 100 / steps)
            tree.write(zone, 1_000_000 + round(truth * 1e6 * k / steps))
            ledger.sample()  # every 20 s of a sampler that reads ten times a second

    record = rapl_window(lab, tree, run)
    tree.write(zone, 1_000_000)
    theirs = codecarbon_rapl(tree, lambda: tree.write(zone, 1_000_000 + round(truth * 1e6)))
    # A refresh of 1 ms at 100 W is 0.1 J: closer than that the edges of a window are not defined.
    passed = abs(record.joules - truth) <= 0.1
    ours = f"{record.joules:.1f} of {truth:.1f} J"
    return Row(5, f"{wraps} wraps in one window", "exact", ours, passed, f"{theirs:.0f} J (its reader paused by a task)")


def bar6(lab: Lab) -> Row:
    """Two sockets with memory, psys and an MMIO mirror."""
    tree = lab.tree("sockets")
    zones = {
        tree.zone("intel-rapl:0", "package-0", uj=7_000_000): 80,
        tree.zone("intel-rapl:1", "package-1", uj=9_000_000): 80,
        tree.zone("intel-rapl:0:0", "dram", uj=3_000_000): 15,
        tree.zone("intel-rapl:1:0", "dram", uj=4_000_000): 15,
        tree.zone("intel-rapl:0:1", "core", uj=2_000_000): 60,
        tree.zone("intel-rapl:2", "psys", uj=30_000_000): 230,
        tree.zone("intel-rapl-mmio:0", "package-0", uj=7_000_000): 80,
    }

    def spend() -> None:
        for zone, joules in zones.items():
            tree.write(zone, int((zone / "energy_uj").read_text()) + joules * 1_000_000)

    def run(clock: Any, ledger: Any) -> None:
        clock.advance(10)
        spend()

    record = rapl_window(lab, tree, run)
    theirs = codecarbon_rapl(tree, spend, dram=True)
    zeus = bars_zeus.sockets(tree.root, spend)
    passed = abs(record.joules - 190) < 1e-3
    return Row(
        6, "2 sockets, package + memory (190 J)", "190 J, no mirror added", f"{record.joules:.1f} J", passed, f"{theirs:.1f} J", zeus
    )
