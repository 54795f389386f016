"""A Lightning training under the meter: energy per epoch, an end at 20 J, and the emissions in a model card."""

from pathlib import Path

if __name__ == "__main__":
    import pytorch_lightning as pl
    import torch
    from pytorch_lightning.demos.boring_classes import BoringModel, RandomDataset

    from joulefront.search.integrations.lightning import EnergyCallback

    loader = torch.utils.data.DataLoader(RandomDataset(32, 640), batch_size=16)
    callback = EnergyCallback(cap="20J", zone="FR", card="README.md")
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    pl.Trainer(max_epochs=3, accelerator="cpu", callbacks=[callback], **quiet).fit(BoringModel(), loader)
    for epoch in callback.energy.epochs:
        print(f"{epoch.name}: {epoch.joules:.2g} J {epoch.quality}")
    print(Path("README.md").read_text())
