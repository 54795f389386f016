"""A front as rows for programs: JSON, CSV, data frame. The keys are stable and have units in them."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

from .records.replicate_summary import row_of

if TYPE_CHECKING:
    import pandas as pd

    from .front import Front
    from .records.trial import Trial

#: Keys of a row, in order. ``quality`` is that of the energy: measured, estimated, mixed or absent.
KEYS = (
    "trial",
    "epochs",
    "accuracy",
    "train_joules",
    "train_wh",
    "grams_co2e",
    "inference_joules_per_1000",
    "parameters",
    "quality",
    "params",
)


def keys_of(front: Front) -> list[str]:
    """Return the keys of a front's rows: ``KEYS``, a quality objective other than accuracy after it, and those of repeats at the end."""
    own = front.objectives[0]
    return [key for name in KEYS for key in ([name, own] if name == "accuracy" and own != name else [name])] + _repeat_keys(front)


def to_rows(front: Front) -> list[dict[str, Any]]:
    """Return one JSON object a member, None where unknown."""
    return [
        {
            "trial": trial.number,
            "epochs": trial.epochs,
            "accuracy": front.quality_of(trial, "accuracy"),
            **({} if front.objectives[0] == "accuracy" else {front.objectives[0]: trial.values[0]}),
            "train_joules": trial.train_joules,
            "train_wh": trial.train_wh,
            "grams_co2e": trial.grams_co2e,
            "inference_joules_per_1000": trial.inference_joules_per_1000,
            "parameters": trial.parameters,
            "quality": trial.energy_quality,
            "params": dict(trial.params),
            **_repeated(front, trial),
        }
        for trial in front
    ]


def _repeat_keys(front: Front) -> list[str]:
    """The keys of what was trained again; none when nothing was."""
    if front.repeated is None:
        return []
    spreads = [f"repeats_{name}_{part}" for name in (front.objectives[0], "train_joules") for part in ("n", "mean", "sd", "low", "high")]
    return [*spreads, "next_differs_in_energy", "next_differs_in_quality"]


def _repeated(front: Front, trial: Trial) -> dict[str, Any]:
    """What the repeats of a member say; None for a member without any."""
    finding = front.repeated
    if finding is None:
        return {}
    member = finding.again(trial.number)
    known = {} if member is None else row_of(finding, member)
    return {key: known.get(key) for key in _repeat_keys(front)}


def to_csv(front: Front) -> str:
    """Return the rows as CSV with a header; ``params`` is one column of JSON, unknown is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, keys_of(front), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "params": json.dumps(row["params"], sort_keys=True)} for row in to_rows(front))
    return text.getvalue()


def to_frame(front: Front) -> pd.DataFrame:
    """Return the rows as a data frame; parameters become columns ``params_NAME``, as in Optuna's own."""
    import pandas as pd

    rows = [{**row, **{f"params_{name}": value for name, value in row.pop("params").items()}} for row in to_rows(front)]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=[key for key in keys_of(front) if key != "params"])
