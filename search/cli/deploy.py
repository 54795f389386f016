"""The verbs of finished models: train them again, export one, predict with it, measure what makes it cheaper."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import AsJson, CpuWatts, Meter, MovedOptions, Pick, Predictions, ProtocolOptions, RunArgument, TrialTimeout, with_options
from .read import interrupted, raise_if_interrupted, trained

if TYPE_CHECKING:
    from ..records.replicates import ReplicateComparison
    from ..records.run_folder import Run
    from ..records.trial import Trial
    from ..study import Study
    from ..training.task import Task


@with_options
def repeat(
    context: typer.Context,
    run: RunArgument,
    moved: MovedOptions,
    protocol: ProtocolOptions,
    times: Annotated[int, typer.Option(help="Trainings per model.")] = 5,
    order: Annotated[str, typer.Option(help="random, abba (forward, then backward) or given.")] = "random",
    pick: Annotated[str, typer.Option(help="front, or rules as for export, separated by commas.")] = "front",
    max_members: Annotated[int, typer.Option(help="Maximum number of members to repeat, evenly spread over a longer front.")] = 10,
    most: Annotated[int | None, typer.Option(help="The earlier name of --max-members.", hidden=True)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the order, the weights and the batches; the study's by default.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; that of the run by default.")] = None,
    meter: Annotated[str | None, typer.Option(help="Sources of energy; those of the run by default.")] = None,
    cpu_watts: CpuWatts = None,
    trial_timeout: TrialTimeout = None,
    as_json: AsJson = False,
) -> None:
    """Train the finalists again with fresh seeds.

    Prints means with intervals, and which of the models can be told apart.
    """
    from ..front import Front
    from ..records.replicates import read_repeats
    from ..records.run_folder import RunFolder
    from ..report.replication_text import to_json, to_text
    from ..running.baselines import MeasurementProtocol
    from ..running.repeat import repeat as repeat_finalists
    from ..study import seconds_of
    from .study_source import adapt, command_line, study_of

    limit = {"max_trial_seconds": None if trial_timeout is None else seconds_of(trial_timeout, "--trial-timeout")}
    folder = RunFolder.open(run)
    words, whole_process = context.obj
    command = command_line(words)
    study = adapt(study_of(folder, moved.data, moved.study, trust=moved.trust), limit, smoke=False)

    def show(finding: ReplicateComparison) -> None:
        repeats = read_repeats(run)
        print(
            json.dumps(to_json(finding, repeats), indent=1, allow_nan=False)
            if as_json
            else to_text(finding, repeats, Front.of(folder.run()).decimals)
        )
        if interrupted(run):
            print(f"continue: {command}", file=sys.stderr)
        elif not any(member.quality for member in finding.members):
            reason = next((one.failed for one in repeats.trainings if one.failed), "nothing was trained")
            raise RuntimeError(f"no repeat has a result: {reason}")

    repeat_finalists(
        study,
        run,
        times=times,
        order=order,
        pick=pick,
        most=max_members if most is None else most,
        seed=seed,
        meter=meter,
        cpu_watts=cpu_watts,
        device=device,
        protocol=MeasurementProtocol(protocol.idle, protocol.cool_down, protocol.anchor),
        command=command,
        whole_process=whole_process,
        show=show,
    )
    raise_if_interrupted(run)


@with_options
def export(
    run: RunArgument,
    to: Annotated[str, typer.Option(help="onnx, pt2, safetensors, skops, or native (LightGBM, XGBoost, CatBoost).")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the model and its card.")],
    *,
    pick: Pick = "sensible",
    variant: Annotated[str | None, typer.Option(help="A cheaper variant, see optimise: int8 (as onnx) or bfloat16 (as pt2).")] = None,
    predictions: Predictions = None,
    push: Annotated[
        str | None, typer.Option(help="Also upload the folder to this repository of the Hugging Face hub; needs --network and HF_TOKEN.")
    ] = None,
    network: Annotated[bool, typer.Option("--network", help="Allow the upload.")] = False,
    refit: Annotated[bool, typer.Option("--refit", help="Train it again on all but the test split, which says what that brought.")] = False,
    moved: MovedOptions,
) -> None:
    """Export a model of the front.

    Its outputs are checked against those of the trained model on validation data.
    """
    from ..export import export as export_model
    from ..export.formats import pick_format
    from ..export.write import check_push, upload

    pick_format(to)
    if push is not None:
        check_push(push, network)
    result, trial, study, task, weights = _picked(run, pick, moved, predictions)
    with tempfile.TemporaryDirectory() as folder:
        again = None
        if refit:
            from ..export.variants import refit as train_again

            trial, task, weights, again = train_again(trial, study=study, task=task, weights=weights, folder=Path(folder), run=result)
        exported = export_model(trial, study=study, task=task, weights=weights, to=to, out=out, run=result, variant=variant, refit=again)
    print(exported.summary() + ("" if again is None else f"\n{again.to_text()}"))
    if push is not None:
        print(f"uploaded: {upload(out, push)}")


def predict(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that joulefront export --to onnx wrote.")],
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Raw files, or folders of them: images, recordings, tables, .npy.")],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the probability of every class.")] = False,
) -> None:
    """Predict files with an exported model.

    Prints label and probability, or the value, of each file or row, of a folder of all files below it. A file that cannot be read is one
    line on stderr and exit code 2; the others are predicted. No code of the folder runs.
    """
    from ..export.predict import Model, run

    if as_csv and as_json:
        raise ValueError("--csv and --json exclude each other; give one")
    if code := run(Model(folder), files, "csv" if as_csv else "json" if as_json else "table"):
        raise typer.Exit(code)


@with_options
def optimise(
    run: RunArgument,
    *,
    pick: Pick = "sensible",
    moved: MovedOptions,
    prune: Annotated[list[float] | None, typer.Option(help="Share of the weights to set to zero; repeatable. [default: 0.5]")] = None,
    compile_model: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Try torch.compile, which takes seconds to minutes.")
    ] = True,
    rounds: Annotated[int, typer.Option(min=2, help="Measurements of each tactic, taken in turns.")] = 3,
    meter: Meter = "auto",
    as_json: AsJson = False,
) -> None:
    """Quantise, compile and prune a trained model.

    Prints what each tactic costs, what it saves per prediction, and when it has paid for itself.
    """
    from ..execution.devices import torch_threads
    from ..export.compress import BrokenOff, to_json, to_text
    from ..export.compress import optimise as measure_tactics
    from ..threads import cores
    from ..training.evaluate import metric_of

    _, trial, study, task, weights = _picked(run, pick, moved)
    torch_threads(cores())
    metric = metric_of(task, study.objectives[0])
    broken = None
    try:
        rows, quality = measure_tactics(
            trial, study=study, task=task, weights=weights, meter=meter, prune=prune or [0.5], compile_model=compile_model, rounds=rounds
        )
    except BrokenOff as interrupt:  # what was measured is paid
        rows, quality, broken = interrupt.rows, interrupt.quality, interrupt
    print(to_json(rows, quality, metric) if as_json else to_text(rows, metric, quality))
    if broken is not None:
        raise broken


def _picked(path: Path, pick: str, moved: MovedOptions, predictions: str | None = None) -> tuple[Run, Trial, Study, Task, Path]:
    """Return a run, the trial that a rule picks, where asked by its training and use, the study, its data and the file of the weights.

    Raises:
        StoreError: If the data are not those of the run: a model's figures would be of other rows.
    """
    from .. import lifetime
    from ..front import Front
    from ..records.run_folder import RunFolder
    from ..running.identity import refuse_other_data
    from .study_source import study_of

    folder = RunFolder.open(path)
    result = folder.run()
    front = Front.of(result)
    used = front if predictions is None else lifetime.with_use(front, lifetime.read_predictions(predictions))
    trial = lifetime.original(front, used.pick(pick))
    study = study_of(folder, moved.data, moved.study, trust=moved.trust)
    task = study.load_task()
    refuse_other_data(folder, task)
    return result, trial, study, task, folder.fetch_artifact(trained(trial, result.trials).number)
