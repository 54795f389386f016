"""An Optuna study of your own: accuracy against measured training energy, until 0.3 mWh are spent."""

import optuna
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from joulefront.search.integrations.optuna import EnergyBudgetCallback, energy_trial

features, labels = load_digits(return_X_y=True)


def objective(trial: optuna.Trial) -> tuple[float, float]:
    """Train one perceptron; return its accuracy and its joules."""
    width = trial.suggest_int("width", 4, 64, log=True)
    with energy_trial(trial) as energy:
        model = MLPClassifier((width,), max_iter=20, random_state=0).fit(features[:1200], labels[:1200])
    return model.score(features[1200:], labels[1200:]), energy.joules


if __name__ == "__main__":
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.NSGAIISampler(seed=0))
    study.optimize(objective, n_trials=200, callbacks=[EnergyBudgetCallback("0.3mWh")])
    for trial in sorted(study.best_trials, key=lambda trial: trial.values[1]):
        print(f"trial {trial.number}: {trial.values[0]:.3f}, {trial.values[1]:.3g} J {trial.user_attrs['energy_quality']}")
