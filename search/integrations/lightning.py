"""Energy in Lightning: ``Trainer(callbacks=[EnergyCallback(cap="5Wh", zone="FR")])``, of ``lightning`` or of ``pytorch_lightning``."""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .epochs import Metered, numbers


def _base() -> type:
    """The class of the package that the program uses: a Trainer takes callbacks of its own one only."""
    names = ("lightning.pytorch", "pytorch_lightning")
    for name in (*(name for name in names if name in sys.modules), *names):
        with suppress(ImportError):
            found: type = importlib.import_module(name).Callback
            return found
    return object


if TYPE_CHECKING:
    from pytorch_lightning import Callback
else:
    Callback = _base()


class EnergyCallback(Metered, Callback):  # type: ignore[misc]  # untyped where Lightning is not installed
    """Measures a training epoch by epoch, ends it at a cap, and writes ``co2_eq_emissions`` into a card.

    What an epoch took is logged, with its unit in the name: ``energy_joules`` and ``energy_total_joules``. The sanity check before the
    first epoch is in the total; validation inside of an epoch is in the epoch's.

    Its arguments and attributes are those of ``Metered``.
    """

    library = (Callback, "pytorch-lightning")

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Start to measure."""
        self.energy.begin()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the window of an epoch."""
        self.energy.begin_epoch()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """End the training where the cap is reached."""
        if self.energy.spent():
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the window of an epoch and log what it took."""
        facts = self.energy.end_epoch()
        if facts is not None:
            for logger in trainer.loggers:
                logger.log_metrics(numbers(facts), step=trainer.global_step)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the account, and write the card."""
        self.energy.end()
        if self._card is not None and trainer.is_global_zero:
            self.energy.write_card(self._card)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close the account of a training that failed: what it took is known, too."""
        self.energy.end("failed" if isinstance(exception, Exception) else "stopped")
