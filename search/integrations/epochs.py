"""The meter inside a training loop of another library: energy per epoch, an end at a cap, and what a model card says of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar

from ..argument_types import refuse_wrong_types
from ..carbon.intensity import grams_co2e
from ..carbon.zones import choose_intensity
from ..energy import Discovery, Ledger, Record, Window, discover
from ..formatting import joules_text, read_amount
from ..records.run import machine_names
from .metering import PREFIX, EnergyUnknownError, facts_of, in_any_process, refuse_unknown, remedy, synchronize

_log = logging.getLogger("joulefront")


@dataclass
class EpochMeter:
    """One training under the meter, epoch by epoch; the callbacks of all libraries hold one.

    A training that goes on from a checkpoint is measured from there. Of a distributed one each process reads its own machine: its own CPU
    time and the GPUs there; the cap ends all of them when one has taken it.

    Args:
        cap: Energy at which the training ends, e.g. ``5Wh``; looked at after every step and epoch. None is no cap.
        meter: As for ``discover``, or what it found.
        zone: Grid zone of the machine, e.g. ``FR``; None with no ``grams_per_kwh`` leaves the grams unknown.
        grams_per_kwh: Carbon intensity in place of the zone's.
        training_type: For the card: ``pre-training`` or ``fine-tuning``.

    Attributes:
        epochs: The energy of each epoch so far: training, and validation where the library does it inside of the epoch.
        record: The whole training once it has ended, or None.
        stopped: Why the cap has ended the training, or None.

    Raises:
        ValueError: If the cap is no energy, or the zone is unknown.
    """

    cap: str | None = None
    meter: str | Discovery = "auto"
    zone: str | None = None
    grams_per_kwh: float | None = None
    training_type: str = "pre-training"
    epochs: list[Record] = field(default_factory=list, init=False)
    record: Record | None = field(default=None, init=False)
    stopped: str | None = field(default=None, init=False)
    _found: Discovery | None = field(default=None, init=False, repr=False)
    _ledger: Ledger | None = field(default=None, init=False, repr=False)
    _window: Window | None = field(default=None, init=False, repr=False)
    _epoch: Window | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        refuse_wrong_types(EpochMeter, vars(self), cap="write '5Wh'")
        self.intensity = choose_intensity(self.grams_per_kwh, self.zone)
        self.cap_joules = None if self.cap is None else read_amount(self.cap, "cap", "5Wh", kinds=("joules",)).value
        if self.cap_joules is not None and not self.cap_joules > 0:
            raise ValueError(f"cap must be > 0, got {self.cap!r}; for example '5Wh'")

    def begin(self) -> None:
        """Start to measure a training; what an earlier one has left is dropped.

        Raises:
            EnergyUnknownError: If there is a cap and nothing on this machine counts.
        """
        self.end("stopped")
        self.epochs, self.record, self.stopped = [], None, None
        self._found = discover(self.meter) if isinstance(self.meter, str) else self.meter
        if self.cap is not None:
            refuse_unknown(self._found)
        self._ledger = Ledger(self._found).start()
        self._window = self._ledger.open("training", synchronize=synchronize)

    def begin_epoch(self) -> None:
        """Open the window of an epoch; one that is open ends.

        Raises:
            RuntimeError: If no training has begun.
        """
        self.end_epoch()
        if self._ledger is None:
            raise RuntimeError("an epoch must lie in a training, got none under way; call begin() first")
        self._epoch = self._ledger.open(f"epoch {len(self.epochs) + 1}", "epoch", self._window, synchronize)

    def end_epoch(self, state: str = "ok") -> dict[str, Any] | None:
        """Close the window of an epoch and return its facts under names with units; None when none is open."""
        if self._epoch is None:
            return None
        epoch, self._epoch = self._epoch, None
        try:
            epoch.close(state, settle=True)
        finally:  # where the device does not answer any more, the window has ended all the same
            self.epochs.append(epoch.record)
        facts = facts_of(self.epochs[-1])
        return {**facts, f"{PREFIX}total_joules": None if self._window is None else self._window.joules()}

    def spent(self) -> bool:
        """Whether the training has taken its cap; says so once. In a distributed training each process asks after the same steps.

        Raises:
            EnergyUnknownError: If there is a cap and the energy is not known any more.
            RuntimeError: If there is a cap and no training has begun.
        """
        if self.cap_joules is None or self.record is not None:  # one that has ended takes nothing any more
            return self.stopped is not None
        if self._window is None:
            raise RuntimeError(f"a cap of {self.cap} must be kept by a training, got none under way; call begin() first")
        joules = self._window.joules()
        if joules is None and self._found is not None:
            raise EnergyUnknownError(f"the energy of a training with a cap must be known, got None; {remedy(self._found)}")
        reached = joules is not None and joules >= self.cap_joules
        if self.stopped is None and in_any_process(reached):  # one that ended alone would leave the others waiting for its gradients
            spent = joules_text(joules)
            self.stopped = f"the cap of {self.cap} is reached ({spent}{'' if reached else ' here, and more in another process'})"
            _log.warning("the training ends: %s", self.stopped)
        return self.stopped is not None

    def end(self, state: str = "ok") -> Record | None:
        """End the training; a second call changes nothing. Return its record, None when none was begun.

        A device that does not answer any more is an error where the training was ``ok`` before, and a warning beside its own error.
        """
        ledger, window = self._ledger, self._window
        if ledger is not None and window is not None:
            try:
                with ExitStack() as steps:  # the last one first, each of them whatever becomes of the others
                    steps.callback(ledger.stop)
                    steps.callback(window.close, "stopped" if self.stopped and state == "ok" else state, settle=True)
                    steps.callback(self.end_epoch, state)
            except Exception as error:
                if state == "ok":
                    raise
                _log.warning("the device did not answer at the end of a training: %r", error)
            finally:
                self.record, self._ledger, self._window, self._found = window.record, None, None, None  # a callback is copied and pickled
        return self.record

    def card_metadata(self) -> dict[str, Any]:
        """Return what a model card says of the training: ``co2_eq_emissions``, empty where the grams are unknown, which is never 0.

        Source: Hugging Face Hub, model card metadata specification.

        Raises:
            RuntimeError: If no training has ended.
        """
        if self._window is not None:  # of an interrupt Keras and transformers tell no callback
            raise RuntimeError(
                'the emissions must be read after a training, got one under way; call energy.end("stopped") if it was broken off'
            )
        if self.record is None:
            raise RuntimeError("the emissions must be read after a training, got none; call the trainer's fit or train first")
        grams = grams_co2e(self.record.joules, self.intensity)
        if grams is None or self.intensity is None:
            return {}
        meters = ", ".join(dict.fromkeys(part.source for part in self.record.counting))
        found: dict[str, Any] = {
            "emissions": float(f"{grams:.6g}"),
            "source": f"joulefront: energy {self.record.quality} ({meters}) times {self.intensity.describe()}",
            "training_type": self.training_type,
        }
        names = machine_names(self.record.hardware)
        found |= {"geographical_location": self.intensity.zone} if self.intensity.zone else {}
        found |= {"hardware_used": ", ".join(dict.fromkeys(names))} if names else {}
        return {"co2_eq_emissions": found}

    def write_card(self, card: str | Path) -> bool:
        """Write ``co2_eq_emissions`` into the front matter of a model card, which is made if need be; the rest of it stays.

        False, and a warning, when the grams are unknown.
        """
        from huggingface_hub.repocard import metadata_load, metadata_save

        metadata, card = self.card_metadata(), Path(card)
        if not metadata:
            _log.warning("%s has no co2_eq_emissions: the energy or the place is unknown; give zone='FR'", card)
            return False
        card.parent.mkdir(parents=True, exist_ok=True)
        metadata_save(card, {**((metadata_load(card) or {}) if card.exists() else {}), **metadata})
        return True


class Metered:
    """What callbacks of libraries with epochs share: their settings, and the meter.

    Args:
        cap: Energy at which the training ends, e.g. ``5Wh``; None is no cap.
        meter: As for ``discover``, or what it found.
        zone: Grid zone of the machine, e.g. ``FR``; ``grams_per_kwh`` in its place. Without either the grams are unknown.
        training_type: ``pre-training`` or ``fine-tuning``; the library's usual one by default.
        card: The model card that gets the emissions when the training has ended, or None.

    Attributes:
        energy: The meter: ``energy.epochs``, ``energy.record``, ``energy.stopped``.
        library: The base class of the library, ``object`` where it is not installed, and the package that has it.

    Raises:
        ImportError: If the library is not installed, with the command that installs it.
    """

    library: ClassVar[tuple[type, str]]
    usual_type: ClassVar[str] = "pre-training"

    def __init__(
        self,
        cap: str | None = None,
        meter: str | Discovery = "auto",
        *,
        zone: str | None = None,
        grams_per_kwh: float | None = None,
        training_type: str | None = None,
        card: str | Path | None = None,
    ) -> None:
        base, package = self.library
        if base is object:
            raise ImportError(f"{package} must be installed for this EnergyCallback, got none; do pip install {package}")
        super().__init__()
        self.energy = EpochMeter(cap, meter, zone, grams_per_kwh, training_type or self.usual_type)
        self._card = card

    def write_card(self, card: str | Path) -> bool:
        """Write ``co2_eq_emissions`` into a model card, e.g. after it was made anew; False when the grams are unknown."""
        return self.energy.write_card(card)


def numbers(facts: dict[str, Any], keep: Callable[[str], bool] = lambda name: True) -> dict[str, float]:
    """Return the facts that a chart can show: finite numbers; what is unknown is left out."""
    return {name: float(value) for name, value in facts.items() if isinstance(value, int | float) and isfinite(value) and keep(name)}
