"""Energy in Keras 3, whatever its backend: ``model.fit(..., callbacks=[EnergyCallback(cap="5Wh")])``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .epochs import Metered, numbers

if TYPE_CHECKING:
    from keras.callbacks import Callback
else:
    try:
        from keras.callbacks import Callback
    except ImportError:  # Keras, or its backend
        Callback = object


class EnergyCallback(Metered, Callback):  # type: ignore[misc]  # untyped where Keras is not installed
    """Measures a training epoch by epoch (validation included), ends it at a cap, and writes ``co2_eq_emissions`` into a card.

    The energy of an epoch is in the history that ``fit`` returns: ``energy_joules`` and ``energy_total_joules``.

    Its arguments and attributes are those of ``Metered``.
    """

    library = (Callback, "keras")

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start to measure."""
        self.energy.begin()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Open the window of an epoch."""
        self.energy.begin_epoch()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """End the training where the cap is reached."""
        if self.energy.spent():
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Close the window of an epoch and put what it took into the history."""
        facts = self.energy.end_epoch()
        if facts is not None and logs is not None:
            logs.update(numbers(facts, lambda name: name in ("energy_joules", "energy_total_joules")))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Close the account, and write the card."""
        self.energy.end()
        if self._card is not None:
            self.energy.write_card(self._card)
