"""What repeats say of a member as a row for programs. The keys are stable and have units in them."""

from __future__ import annotations

from typing import Any

from ..energy.intervals import Difference, Spread
from .statistics import Again, Finding


def row_of(finding: Finding, member: Again) -> dict[str, Any]:
    """Return what is known of a member as one flat object."""
    pair, name = finding.after(member.trial.number), finding.objective
    return {
        "trial": member.trial.number,
        "epochs": member.trial.epochs,
        "repeats_failed": member.failed,
        name: member.searched,
        "train_joules": member.trial.train_joules,
        **spread_keys(name, member.quality),
        **spread_keys("train_joules", member.energy),
        "spread_over_meter": member.spread_over_meter,
        "next_trial": None if pair is None else pair.dearer,
        "next_differs_in_energy": _clear(None if pair is None else pair.energy),
        "next_differs_in_quality": _clear(None if pair is None else pair.quality),
    }


def spread_keys(name: str, spread: Spread | None) -> dict[str, Any]:
    """Return a spread as ``repeats_NAME_n``, ``..._mean``, ``..._sd``, ``..._low`` and ``..._high``."""
    fields = ("mean", "sd", "low", "high")
    return {
        f"repeats_{name}_n": 0 if spread is None else spread.n,
        **{f"repeats_{name}_{field}": None if spread is None else getattr(spread, field) for field in fields},
    }


def _clear(difference: Difference | None) -> bool | None:
    return None if difference is None else difference.clear
