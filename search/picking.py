"""The rules by which a user names a model: how they are written, and the bound that one of them sets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil, floor, log10

from .formatting import plain, read_amount, read_number, unit_for

RULES = "sensible, knee, best, cheapest, trial=N, accuracy>=0.95 (cheapest that reaches it), energy<=5Wh (most accurate within it)"

_RULE = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(=|>=|<=|≥|≤)\s*(\S.*?)\s*", re.DOTALL)
_SIGNS = {"≥": ">=", "≤": "<="}


@dataclass(frozen=True)
class Bound:
    """What a rule asks of one quantity.

    Attributes:
        name: ``trial``, ``energy`` or the name of a quality.
        sign: ``=``, ``>=`` or ``<=``.
        value: The number of a trial, joules, or the value of the quality.
        text: The bound as it was written.
        percent: Whether a share was written in percent.
    """

    name: str
    sign: str
    value: float
    text: str
    percent: bool = False

    def rounded_up(self, joules: float) -> str:
        """Write an energy with three digits, rounded up so that the bound lets it through.

        >>> Bound("energy", "<=", 1.0, "1J").rounded_up(12.3456)
        '3.43mWh'
        """
        unit = unit_for([joules])
        value = unit.of(joules)
        step = 10.0 ** (floor(log10(value)) - 2)
        return f"{plain(ceil(value / step) * step)}{unit.name}"


def read_rule(rule: str) -> Bound:
    """Read ``trial=12``, ``energy<=0.05 mWh``, ``accuracy>=0.95`` or ``accuracy>=95%``.

    Raises:
        ValueError: If it is none of these; the message names the remedy.
    """
    match = _RULE.fullmatch(rule)
    if match is None:
        raise ValueError(f"--pick must be a rule, got {rule!r}; write one of {RULES}")
    name, sign, text = match[1], _SIGNS.get(match[2], match[2]), match[3]
    if name == "trial":
        if sign != "=" or not re.fullmatch("[0-9]+", text):
            raise ValueError(f"--pick {rule!r}: a trial is named by its number, for example trial=12")
        return Bound(name, sign, int(text), text)
    if name == "energy":
        amount = read_amount(text, f"--pick {rule!r}: the energy", "energy<=5Wh", kinds=("joules",))
        if sign != "<=":
            raise ValueError(f"--pick {rule!r}: energy is bounded from above; write energy<={text}")
        return Bound(name, sign, amount.value, text)
    value = read_number(text.removesuffix("%"))
    if value is None:
        raise ValueError(f"--pick {rule!r}: the bound must be a number, got {text!r}; write one of {RULES}")
    return Bound(name, sign, value / 100 if text.endswith("%") else value, text, text.endswith("%"))
