"""What a trial keeps of its windows: the price of its model from scratch, what the search paid for it, and the shares of what many use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import hypot, sqrt
from typing import TYPE_CHECKING

from ..carbon.intensity import Intensity, grams_co2e
from ..energy import Component, Ledger, Record
from ..energy.journal import fitted
from ..energy.record import add, combined_quality, scaled, sum_known
from ..records.bill import FEATURES
from ..records.trial import ComponentEnergy, Trial, TrialEnergy
from ..training.feature_cache import FeatureCache, Price
from ..training.results import PASS, SAMPLE, WAY, FeaturesUsed

if TYPE_CHECKING:
    from ..training.text import Embedded

#: Relative standard uncertainty of an energy beside foreign work, which takes turns, caches and memory bandwidth: no meter shows it.
#: Source: three networks trained beside four streaming neighbours took 1.10, 1.13 and 1.19 times as much (CPU estimate, ten runs each).
FOREIGN_U = 0.15
#: Carbon per kWh: one number, or its mean over the time of a record, None where that is unknown.
Factor = Intensity | Callable[[Record], Intensity | None]


def trial_energy(
    whole: Record,
    phases: Sequence[Record],
    *,
    parent: Trial | None,
    predictions: int,
    intensity: Factor | None,
    pue: float = 1.0,
    shared: Sequence[Record] = (),
    compiled: Iterable[Trial] = (),
) -> TrialEnergy:
    """Return the energy of a trial.

    What the model costs to train from scratch is what it shares with others, the start-up of the lineage's first trial, compiling
    included, and every epoch of the lineage. Kernels that were compiled for an earlier trial cost what they cost then: who trains the
    model from scratch pays it. Validation, analysis, storing and the start-up of continuations were paid by the search, not by the model.

    Args:
        whole: The trial's own window, from the executor taking the job to the weights being stored.
        phases: Records of its inner windows: ``setup``, ``compile``, ``epoch``, ``eval``, ``analysis``, ``inference``.
        parent: The trial that was continued, or None.
        predictions: Number of predictions in the ``inference`` window.
        intensity: Of the place; None when unknown.
        pue: Power usage effectiveness of the site; enters the grams only.
        shared: What the study pays once and every model that needs it costs, whoever has paid for it: the features of its images.
        compiled: Trials that have the same kernels, if they were compiled: the first paid for them, others found them in a cache.
    """
    paid = _compiling(phases, compiled)
    now = [r if r in phases else replace(r, t0_utc=whole.t0_utc, t0_ns=whole.t0_ns, t1_ns=whole.t1_ns) for r in (*shared, *paid)]
    first = [] if parent is not None else [*now, *(record for record in phases if record.kind == "setup")]
    training = [*first, *(record for record in phases if record.kind == "epoch")]
    components = {} if parent is None else dict(parent.energy.components)
    for part in (part for record in training for part in record.components if part.counts):
        components[part.name] = _plus(components.get(part.name), part)
    earlier = [] if parent is None else [parent]
    joules = sum_known([*(trial.train_joules for trial in earlier), *(record.joules for record in training)])
    before = 0.0 if parent is None else parent.energy.train_seconds
    test = next((record for record in phases if record.kind == "inference" and predictions), None)
    inference, u_inference = (None, None) if test is None else _per_1000(test, whole, predictions)
    return TrialEnergy(
        train_joules=joules,
        train_u_joules=_training_u_joules(whole, phases, training, parent),
        features_joules=parent.energy.features_joules if parent is not None else sum_known(record.joules for record in shared),
        increment_joules=whole.joules,
        evaluation_joules=sum_known(record.joules for record in phases if record.kind == "eval"),
        analysis_joules=sum_known(record.joules for record in phases if record.kind == "analysis"),
        inference_joules_per_1000=inference,
        inference_u_joules_per_1000=u_inference,
        grams_co2e=_grams(joules, training, parent, intensity, pue),
        components=components,
        quality=combined_quality([*(record.quality for record in training), *(trial.energy_quality for trial in earlier)]),
        train_seconds=None if before is None else before + sum(record.seconds for record in training),
        cpu_seconds=sum_known([*(trial.energy.cpu_seconds for trial in earlier), *(record.cpu_seconds for record in training)]),
        gpu_utilisation=_gpu_utilisation(training, parent),
        hardware_id=whole.hardware_id,
        record=whole.to_json(),
        compiled=dict(parent.energy.compiled) if parent is not None else replace(paid[0], hardware={}).to_json() if paid else {},
        contended=bool(whole.contended) or any(trial.energy.contended for trial in earlier),
    )


def _compiling(phases: Sequence[Record], compiled: Iterable[Trial]) -> list[Record]:
    """Return what compiling costs a model from scratch: the most of this trial and those with the same kernels; nothing without any."""
    paid = [record for record in phases if record.kind == "compile"]
    if not paid:
        return []
    known = (fitted(Record, one.energy.compiled, f"what trial {one.number} has compiled") for one in compiled if one.energy.compiled)
    return [max((*paid, *known), key=lambda record: record.known_joules)]


def _training_u_joules(whole: Record, phases: Sequence[Record], training: Sequence[Record], parent: Trial | None) -> float | None:
    """Return the standard uncertainty of the energy of a model's training, what it continues included; None where a part's is unknown."""
    own, earlier = [record.u_random_joules for record in training], [] if parent is None else [parent.train_u_joules]
    split_up = any(part.attribution.startswith("shared") for part in whole.counting)
    if split_up and own and None not in own:
        # A model whose work draws more than its neighbours' does so in every window: the error of the split is one for all of them.
        share = sum(record.known_joules for record in phases if record in training) / (whole.known_joules or 1.0)
        own = [max(_quadrature(own) or 0.0, (whole.u_random_joules or 0.0) * share)]
    found = (sum_known if split_up else _quadrature)([*own, *earlier])
    # One neighbour raises all windows of a trial alike.
    return None if found is None else hypot(found, _foreign_joules(whole, training))


def _per_1000(test: Record, whole: Record, predictions: int) -> tuple[float | None, float | None]:
    """Return the joules of 1,000 predictions and their standard uncertainty, from a window that held so many."""
    scale, u_joules = 1000.0 / predictions, test.u_random_joules
    u_joules = None if u_joules is None else hypot(u_joules, _foreign_joules(whole, [test])) * scale
    return None if test.joules is None else test.joules * scale, u_joules


def _foreign_joules(whole: Record, records: Sequence[Record]) -> float:
    """Return the standard uncertainty of records' energies beside foreign work, see `FOREIGN_U`; zero where nobody saw any.

    A counter holds what the others took, too: of the CPU's any part up to their share of its work, of a GPU's any part at all, which are
    half-widths of uniform distributions (GUM 4.3.7). An estimate from CPU-seconds holds our own alone.
    """
    if not whole.contended:
        return 0.0
    others, gpus = float(whole.contended.get("foreign_cpu_seconds", 0.0)), whole.contended.get("foreign_gpu_pids", ())
    # What is split with other trials of this run leaves the others' work out already.
    known = 0.0 if whole.cpu_seconds is None or any(part.attribution != "exclusive" for part in whole.counting) else whole.cpu_seconds
    share, held = others / (others + known) if others and known else 0.0, 0.0
    for part in (part for record in records for part in record.counting if part.quality == "measured"):
        held += (part.joules or 0.0) * (float(part.name in gpus) if part.name.startswith("gpu:") else share)
    return max(FOREIGN_U * sum(record.known_joules for record in records), held / sqrt(12))


def price_of_features(used: FeaturesUsed | None, phases: Sequence[Record], cache: FeatureCache | None, whole: Record) -> tuple[Record, ...]:
    """Return what the features of a model's training images cost at its own cut, whoever has paid for them; nothing where it has none.

    It is the price of an image times their number, and that of finding a faster way of running the network, see ``Price``. It is the one
    that is known of most images here; what this training has computed is kept for later ones. Where nothing was measured it is unknown: a
    record without components.
    """
    if used is None:
        return ()
    passed, found, sampled = (
        [record for record in phases if record.kind == FEATURES and record.name.endswith(f" {index}")] for index in (PASS, WAY, SAMPLE)
    )
    once = add(found) if found else None
    # What was passed is the whole entry, which may be more than the part that this model has.
    measured = [("", used.computed - used.sampled, passed), (used.part, used.sampled, sampled)]
    own = {part: Price(images, add(records), once, used.slower) for part, images, records in measured if images and records}
    price = own.get(used.part)
    if cache is not None and used.key is not None:
        for part, one in own.items():
            if one.record.joules is not None:
                cache.keep_price(used.key, one, part)
        price = cache.price(used.key, used.part) or price
    return (replace(whole, kind=FEATURES, components=()),) if price is None else price.of(used.images)


def price_of_inputs(embedded: Embedded | None, ledger: Ledger) -> tuple[Record, ...]:
    """Return what features in a task's inputs take for its training rows, measured on some of them; nothing where there are none.

    They were computed as the task was loaded, once for all models; each model that is made again needs them.
    """
    if embedded is None:
        return ()
    with ledger.window("features of the inputs", kind="overhead") as window:
        embedded.compute()
        record = window.close()
    return (replace(scaled(record, embedded.times), kind=FEATURES),)


def _gpu_utilisation(training: Sequence[Record], parent: Trial | None) -> float | None:
    """Mean over the lineage of the GPU that worked most; unknown when any part of it is."""
    seconds = [record.seconds for record in training]
    shares = [max(record.utilisation.values(), default=None) for record in training]
    if parent is not None:
        seconds.append(parent.energy.train_seconds or 0.0)
        shares.append(None if parent.energy.train_seconds is None else parent.energy.gpu_utilisation)
    if sum(seconds) <= 0 or any(share is None for share in shares):
        return None
    return sum(share * part for share, part in zip(shares, seconds, strict=True) if share is not None) / sum(seconds)


def _grams(joules: float | None, training: Sequence[Record], parent: Trial | None, intensity: Factor | None, pue: float) -> float | None:
    """Carbon of a training: of all its joules at one intensity, or of each of its windows at the intensity of its time."""
    if intensity is None:
        return None
    if isinstance(intensity, Intensity):
        return grams_co2e(joules, intensity, pue=pue)
    parts = [grams_co2e(record.joules, intensity(record), pue=pue) for record in training]
    return sum_known(parts if parent is None else [parent.grams_co2e, *parts])


def _plus(before: ComponentEnergy | None, part: Component) -> ComponentEnergy:
    """Add what a window took to the energy of a component."""
    idle = None if part.joules is None or part.net_joules is None else part.joules - part.net_joules
    own = ComponentEnergy(part.joules, part.quality, part.source, idle)
    return own if before is None else before.plus(own)


def _quadrature(values: Sequence[float | None]) -> float | None:
    """Independent random uncertainties add in squares; with one of them unknown, or none, the sum's is unknown."""
    known = [value for value in values if value is not None]
    return hypot(*known) if known and len(known) == len(values) else None


def with_energies(curve: Sequence[Mapping[str, float]], phases: Sequence[Record]) -> tuple[Mapping[str, float], ...]:
    """Return the entries of a curve with the ``joules`` of their epochs; epochs whose energy is unknown stay as they are."""
    epochs = [record for record in phases if record.kind == "epoch"]
    joules = {record.name.rpartition(" ")[2]: record.joules for record in epochs}
    return tuple({**point, "joules": value} if (value := joules.get(str(point["epoch"]))) is not None else dict(point) for point in curve)
