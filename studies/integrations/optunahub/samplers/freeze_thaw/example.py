"""Multi-fidelity search of a small classifier: quality against measured training energy, with trainings that are resumed."""

import optuna
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

features, labels = load_digits(return_X_y=True)
models: dict[int, tuple[SGDClassifier, int]] = {}


def objective(trial: optuna.Trial) -> tuple[float, float]:
    """Return accuracy, and the joules of training this model from scratch."""
    alpha = trial.suggest_float("alpha", 1e-6, 1e-1, log=True)
    epochs = trial.suggest_int("epochs", 1, 9)
    parent = freeze_thaw.resume_from(trial)
    model, done = (SGDClassifier(alpha=alpha, random_state=0), 0) if parent is None else models[parent]
    with freeze_thaw.energy_trial(trial) as energy:
        for _ in range(epochs - done):
            model.partial_fit(features[:1200], labels[:1200], classes=range(10))
    models[trial.number] = model, epochs
    return model.score(features[1200:], labels[1200:]), energy.joules_from_scratch


if __name__ == "__main__":
    import optunahub

    freeze_thaw = optunahub.load_module("samplers/freeze_thaw")
    sampler = freeze_thaw.FreezeThawSampler(rungs=[1, 3, 9], seed=0)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(objective, n_trials=15, callbacks=[freeze_thaw.EnergyBudgetCallback("5mWh")])
    for trial in sorted(study.best_trials, key=lambda trial: trial.values[1]):
        print(f"{trial.values[0]:.3f} for {trial.values[1]:.3g} J ({trial.user_attrs['energy_quality']})")
