"""What a search has brought at its end: what of the energy trained models, and what the last of it added.

What continuing would bring cannot be predicted: replayed on finished studies, the sampler's expectation was above what came every time,
by factors from one to some hundreds, and what the same energy had brought before was off as far in both directions. So the end of a run
reports what its last energy has brought (`recent_gain`), a fact in place of a promise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from ..formatting import count_text, joules_text
from ..front import Front
from ..records.bill import FEATURES, add_up
from ..records.run_folder import RunFolder
from ..records.trial import Trial, counted
from ..report.facts import over_default
from ..stopping.rules import NOT_WORTH_IT, Limits, joules_of
from ..study import Study
from .trial_runner import TrialRunner

#: Share of the trials' energy whose gain is reported.
SHARE = 0.25
#: Of fewer trials than this nothing is reported.
LEAST = 12
#: How the reasons begin after which the same limits leave nothing to do, those that count and others.
_REACHED, _FINISHED = ("all ", "the budget of "), ("every combination ", NOT_WORTH_IT)


def finished(folder: RunFolder, study: Study, *, no_stop: bool = False) -> str | None:
    """Return why the last session of a run ended, if it has done all that the study's own limits ask for; None if work is left.

    A session may have had smaller limits than the study's. With ``no_stop`` a study that has found the rest not worth it is not finished.
    """
    facts = folder.facts
    reason = str(facts["sessions"][-1].get("reason") or "") if facts["sessions"] else ""
    if not reason.startswith(_REACHED) or (study.budget is None and study.trials is None):
        return reason if reason.startswith((*_REACHED, *_FINISHED)) and not (no_stop and reason.startswith(NOT_WORTH_IT)) else None
    run, grams, price = folder.run(), dict(facts.get("intensity") or {}).get("grams_per_kwh"), facts.get("price_per_kwh")
    priced, joules = None if price is None else (float(price[0]), str(price[1])), None
    if study.budget is not None:
        with suppress(ValueError):  # its money or grams cannot be told: the run itself says so
            joules = joules_of(study.budget, grams_per_kwh=grams, pue=facts.get("pue") or 1.0, price_per_kwh=priced)
    own = Limits(joules, study.trials)
    return reason if own.reached(joules=run.bill.total_joules, trials=counted(run.trials), seconds=0.0) else None


def recent_gain(front: Front) -> str | None:
    """Return how much the last quarter of the trials' energy raised the hypervolume; None while there are too few trials.

    A clause: ``the last quarter of the trials' energy (1.2 mWh, 9 trials) raised the hypervolume from 0.580 to 0.589``.
    """
    done = sorted((trial for trial in front.trials if trial.state != "running"), key=lambda trial: trial.number)
    joules = [trial.increment_joules or 0.0 for trial in done]
    if len(done) < LEAST or not sum(joules) > 0:
        return None
    spent, first = 0.0, 0
    while spent < (1.0 - SHARE) * sum(joules):
        spent += joules[first]
        first += 1
    if first == len(done):  # the very last training took more than the quarter
        first -= 1
    before = replace(front, trials=tuple(done[:first])).hypervolume()
    after = front.hypervolume()
    count = len(done) - first
    energy = joules_text(sum(joules[first:]))
    what = f"the last quarter of the trials' energy ({energy}, {count_text(count, 'trial')})"
    if after <= before:
        return f"{what} did not raise the hypervolume of {after:.3f}"
    return f"{what} raised the hypervolume from {before:.3f} to {after:.3f}"


def course(front: Front, spent_joules: float | None, overhead: Mapping[str, float] | None = None) -> list[str]:
    """Return which share of the energy trained models and what the rest was for, and when the quality last rose, as clauses.

    ``overhead`` is in joules by what it was for; what of the rest is not in it is left out.
    """
    done = sorted((trial for trial in front.trials if trial.values), key=lambda trial: trial.number)
    if not done:
        return []
    beside = ("evaluation_joules", "analysis_joules")
    paid = [trial for trial in front.trials if trial.increment_joules is not None]
    trained = sum((trial.increment_joules or 0.0) - sum(getattr(trial.energy, name) or 0.0 for name in beside) for trial in paid)
    said = []
    if spent_joules:
        validation = sum(trial.energy.evaluation_joules or 0.0 for trial in paid)
        parts = [("validation", validation), *sorted((overhead or {}).items(), key=lambda part: -part[1])]
        rest = ", ".join(f"{name} {joules / spent_joules:.0%}" for name, joules in parts if joules >= 0.005 * spent_joules)
        said.append(f"{min(1.0, trained / spent_joules):.0%} of {joules_text(spent_joules)} trained models")
        said[-1] += f" ({rest})" if rest and overhead else ""
    best = max(done, key=lambda trial: (front.gain(trial), -trial.number))
    return [*said, f"{front.objectives[0]} last rose at trial {best.number} of {len(front.trials)}"]


def features_text(trials: Sequence[Trial], paid_joules: float) -> str | None:
    """Return what a session has paid for features of frozen networks; None where none of its trials has any."""
    count = sum(trial.energy.features_joules is not None for trial in trials)
    if not count:
        return None
    models = count_text(count, "trial")
    if not paid_joules:
        return f"features of frozen networks: all from the cache, nothing paid for {models}"
    return f"features of frozen networks: {joules_text(paid_joules)}, paid once for {models}"


def tell_end(runner: TrialRunner) -> None:
    """Say why a session of a search has ended and what it has brought, and leave what the folder keeps of it."""
    session, study, optuna_study, rules = runner.session, runner.study, runner.optuna_study, runner.rules
    reporter, hourly, member = runner.reporter, runner.carbon, runner.member
    session.reason = rules.reason or session.reason
    session.end_facts |= session.baseline_facts
    if noted := sorted(reporter.expectations.items()):
        session.end_facts["expected"] = [{"share": share, **expected.to_json()} for share, expected in noted]
    if hourly is not None:
        session.end_facts |= hourly.facts()
    front = Front.of(session.folder.run(optuna_study), complete_only=study.complete_only)
    rules.account.save()
    parts = add_up(rules.account.sessions()).overhead_parts
    used = course(front, None if member is not None and member.others else rules.account.spent_joules(), parts)
    reporter.tell("end", "; ".join([f"ended: {session.reason}", *used]))
    if not front.trials and rules.limits.joules is not None and (started := rules.account.spent_joules() or 0.0) >= rules.limits.joules:
        reporter.tell("end", f"imports, data and warm-up alone took {joules_text(started)}; give a larger --budget")
    own = [trial for trial in front.trials if trial.number >= session.trials_before]
    if not session.inputs and (said := features_text(own, session.account.session.by_state.get(FEATURES, 0.0))) is not None:
        reporter.tell("end", said)
    if (gained := over_default(front)) is not None:
        reporter.tell("end", gained)
    if (recent := recent_gain(front)) is not None:
        reporter.tell("detail", recent)
    for trial in front if member is not None else ():
        session.folder.fetch_artifact(trial.number)
    session.folder.save_snapshot(optuna_study)
    for log in reporter.logs:
        log.end(session.folder.run(optuna_study), front)
