"""A study in TensorBoard: trials with units, and the front. From a shell: joulefront run digits --log tensorboard (or mlflow, wandb)."""

if __name__ == "__main__":
    from joulefront.search import find_study, run
    from joulefront.search.integrations.run_log import loggers_of

    run(find_study("digits", {}), trials=2, out="tracked", loggers=loggers_of("tensorboard"))

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator("tracked/tensorboard")  # what `tensorboard --logdir tracked` shows
    events.Reload()
    for joules, accuracy in zip(events.Scalars("trials/train_joules"), events.Scalars("trials/accuracy"), strict=True):
        print(f"trial {joules.step}: {accuracy.value:.3f}, {joules.value:.2g} J")
    print(", ".join(name for name in events.Tags()["scalars"] if "joules" in name))
