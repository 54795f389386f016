"""A tiny BERT in the Trainer of transformers: energy per epoch, an end at 20 J, and the emissions in the model card."""

from pathlib import Path

if __name__ == "__main__":
    import torch
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    from joulefront.search.integrations.transformers import EnergyCallback

    shape = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    rows = torch.randint(1, 50, (64, 12), generator=torch.Generator().manual_seed(0))
    data = [{"input_ids": row, "labels": int(row[0] > 25)} for row in rows]
    callback = EnergyCallback(cap="20J", zone="FR")
    arguments = TrainingArguments("tiny", num_train_epochs=3, report_to="none", save_strategy="no", disable_tqdm=True, use_cpu=True)
    Trainer(BertForSequenceClassification(BertConfig(**shape)), arguments, train_dataset=data, callbacks=[callback]).train()
    for epoch in callback.energy.epochs:
        print(f"{epoch.name}: {epoch.joules:.2g} J {epoch.quality}")
    print(Path("tiny/README.md").read_text())
