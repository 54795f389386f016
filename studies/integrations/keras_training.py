"""A Keras training under the meter, on torch: energy per epoch, an end at 20 J, and the emissions in a model card."""

import os
from pathlib import Path

if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras
    from sklearn.datasets import load_digits

    from joulefront.search.integrations.keras import EnergyCallback

    features, labels = load_digits(return_X_y=True)
    model = keras.Sequential([keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10, activation="softmax")])
    model.compile(loss="sparse_categorical_crossentropy")
    callback = EnergyCallback(cap="20J", zone="FR", card="README.md")
    model.fit(features / 16, labels, epochs=3, verbose=0, callbacks=[callback])
    for epoch in callback.energy.epochs:
        print(f"{epoch.name}: {epoch.joules:.2g} J {epoch.quality}")
    print(Path("README.md").read_text())
