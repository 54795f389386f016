"""What ``joulefront estimate`` does: read, probe, print."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..carbon.intensity import check_pue, choose_intensity
from ..carbon.price import parse_price
from ..records.files import write_json
from ..records.run_folder import Store
from ..stopping.limits import limits_of
from ..study import Budget
from ..verbs.catalog import find_study
from ..verbs.origin import adapt
from .estimate import estimate, probe_study


def estimate_study(
    source: str,
    options: Mapping[str, Any],
    *,
    overrides: Mapping[str, Any],
    zone: str | None,
    grams_per_kwh: float | None,
    pue: float,
    price: str | None,
    trials: int | None,
    budget: str | None,
    probes: int,
    earlier: Sequence[Path],
    out: Path | None,
    meter: str,
    device: str,
    as_json: bool,
) -> None:
    """Print what a study will cost; a run that follows in the same folder compares it with what it did cost."""
    wanted = None if budget is None else Budget.parse(budget)
    check_pue(pue)
    intensity = choose_intensity(grams_per_kwh, zone, network=False, token=None)
    per_kwh = None if price is None else parse_price(price)
    study = adapt(find_study(source, options), overrides, smoke=False)
    grams = None if intensity is None else intensity.grams_per_kwh
    money = None if per_kwh is None else (per_kwh.per_kwh, per_kwh.currency)
    limits, _ = limits_of(study, wanted, trials, None, None, 0, grams, pue, money)
    found, overhead, joules = probe_study(study, count=probes, meter=meter, device=device)
    known = [trial for folder in earlier for trial in Store.open(folder).run().trials]
    guess = estimate(
        study,
        found,
        known,
        joules_limit=limits.joules,
        trial_limit=limits.trials,
        overhead=overhead,
        probe_joules=joules,
        seed=study.seed,
    )
    path = out if out is not None else Path("runs") / study.name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path.with_name(f"{path.name}.estimate.json"), guess.to_json())
    print(json.dumps(guess.to_json(), indent=1) if as_json else guess.to_text())
