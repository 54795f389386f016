"""Energy in the Trainer of transformers: ``Trainer(..., callbacks=[EnergyCallback(cap="5Wh", zone="FR")])``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .epochs import Metered, numbers

if TYPE_CHECKING:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
else:
    try:
        from transformers import TrainerCallback
    except ImportError:
        TrainerCallback = object


class EnergyCallback(Metered, TrainerCallback):  # type: ignore[misc]  # untyped where transformers is not installed
    """Measures a training epoch by epoch, ends it at a cap, and writes ``co2_eq_emissions`` into the card of the output folder.

    The energy of an epoch is in the trainer's log (``state.log_history``), with its unit; what the trainer reports to does not get it.

    Its arguments and attributes are those of ``Metered``, but for ``card``: True is ``README.md`` of the output folder, False is none.
    """

    library = (TrainerCallback, "transformers")
    usual_type = "fine-tuning"

    def __init__(self, *arguments: Any, card: bool | str | Path = True, **settings: Any) -> None:
        super().__init__(*arguments, card=None if isinstance(card, bool) else card, **settings)
        self._own_card = card is True

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
        """Close the account, and write the card; that of the output folder only where the place is known."""
        self.energy.end()
        own = self._own_card and self.energy.intensity is not None and args.output_dir is not None
        card = Path(args.output_dir) / "README.md" if own else self._card
        if card is not None and state.is_world_process_zero:
            self.write_card(card)
