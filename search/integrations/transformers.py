"""Energy in the Trainer of transformers: ``Trainer(..., callbacks=[EnergyCallback(cap="5Wh", zone="FR")])``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..energy import Discovery
from .epochs import EpochMeter, numbers, require

if TYPE_CHECKING:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
else:
    try:
        from transformers import TrainerCallback
    except ImportError:
        TrainerCallback = object


class EnergyCallback(TrainerCallback):  # type: ignore[misc]  # untyped where transformers is not installed
    """Measures a training epoch by epoch, ends it at a cap, and writes ``co2_eq_emissions`` into the card of the output folder.

    The energy of an epoch is in the trainer's log (``state.log_history``), so whatever the trainer reports to shows it, with its unit.

    Args:
        cap: Energy at which the training ends, e.g. ``5Wh``; None is no cap.
        meter: As for ``discover``, or what it found.
        zone: Grid zone of the machine, e.g. ``FR``; ``grams_per_kwh`` in its place. Without either the card says nothing of CO2e.
        training_type: ``fine-tuning`` or ``pre-training``.
        card: Whether ``README.md`` of the output folder gets the emissions when the training has ended; ``write_card`` does it later.

    Attributes:
        energy: The meter: ``energy.epochs``, ``energy.record``, ``energy.stopped``.
    """

    def __init__(
        self,
        cap: str | None = None,
        meter: str | Discovery = "auto",
        *,
        zone: str | None = None,
        grams_per_kwh: float | None = None,
        training_type: str = "fine-tuning",
        card: bool = True,
    ) -> None:
        require(TrainerCallback, "transformers")
        self.energy = EpochMeter(cap, meter, zone, grams_per_kwh, training_type)
        self._card = card

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Start to measure."""
        self.energy.begin()

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Open the window of an epoch."""
        self.energy.begin_epoch()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """End the training where the cap is reached."""
        if self.energy.spent():
            control.should_training_stop = True

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Close the window of an epoch and note what it took."""
        facts = self.energy.end_epoch()
        if facts is not None:
            state.log_history.append(
                {"epoch": state.epoch, "step": state.global_step, **numbers(facts), "energy_quality": facts["energy_quality"]}
            )

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Close the account, and write the card."""
        self.energy.end()
        if self._card and state.is_world_process_zero and self.energy.intensity is not None and args.output_dir is not None:
            self.write_card(Path(args.output_dir) / "README.md")

    def write_card(self, card: str | Path) -> bool:
        """Write ``co2_eq_emissions`` into a model card, e.g. after ``trainer.create_model_card()``; False when the grams are unknown."""
        return self.energy.write_card(card)
