"""The meter in the training loops of other libraries: energy per epoch, an end at a cap, and a model card."""

import os
import pickle
import runpy
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from joulefront.search.energy import Discovery
from joulefront.search.integrations import epochs
from joulefront.search.integrations.epochs import EpochMeter, Metered
from joulefront.search.integrations.metering import EnergyUnknownError

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec")  # Lightning's own

SCRIPTS = Path(__file__).parents[3] / "studies" / "integrations"


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_epochs_add_up_to_less_than_the_training_and_a_cap_ends_it() -> None:
    meter = EpochMeter("0.2J", "cpu_time")
    meter.begin()
    for _ in range(50):
        meter.begin_epoch()
        burn(0.03)
        facts = meter.end_epoch()
        assert facts is not None
        assert facts["energy_joules"] > 0
        if meter.spent():
            break
    record = meter.end()
    assert record is not None
    assert record.joules is not None
    assert 1 < len(meter.epochs) < 50
    assert record.joules >= sum(epoch.joules or 0.0 for epoch in meter.epochs)
    assert record.state == "stopped"
    assert (meter.stopped or "").startswith("the cap of 0.2J is reached (")
    assert pickle.loads(pickle.dumps(meter)).record == meter.record, "a callback is pickled and copied after its training"
    assert meter.end() is record


def test_a_cap_that_another_process_has_taken_ends_this_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    group, others = torch.distributed, [0]
    monkeypatch.setattr(group, "is_initialized", lambda: True)
    monkeypatch.setattr(group, "get_backend", lambda: "gloo")
    monkeypatch.setattr(group, "all_reduce", lambda tensor, op: tensor.clamp_(min=others[0]))
    meter = EpochMeter("1Wh", "cpu_time")
    meter.begin()
    assert not meter.spent()
    others[0] = 1
    assert meter.spent()
    assert (meter.stopped or "").endswith("here, and more in another process)")
    meter.end()


def test_a_device_that_is_lost_keeps_the_record_and_leaves_no_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lost = list[int]()

    def synchronize() -> None:
        if lost:
            raise RuntimeError("device-side assert")

    monkeypatch.setattr(epochs, "synchronize", synchronize)
    before = threading.active_count()
    for state in ("failed", "ok"):
        lost.clear()
        meter = EpochMeter(meter="cpu_time")
        meter.begin()
        meter.begin_epoch()
        burn(0.03)
        lost.append(1)
        if state == "failed":  # the library raises the training's own error
            meter.end(state)
            assert "device-side assert" in caplog.text
        else:
            with pytest.raises(RuntimeError, match="device-side assert"):
                meter.end(state)
        assert meter.record is not None
        assert (meter.record.joules or 0.0) > 0
        assert meter.record.state == "failed"
        assert len(meter.epochs) == 1
        assert threading.active_count() == before


def test_a_training_that_was_broken_off_without_a_word_is_not_called_none() -> None:
    meter = EpochMeter(meter="cpu_time", grams_per_kwh=56.0)
    with pytest.raises(RuntimeError, match="got none"):
        meter.card_metadata()
    meter.begin()
    meter.begin_epoch()  # an interrupt, of which Keras and transformers tell no callback
    with pytest.raises(RuntimeError, match="under way"):
        meter.card_metadata()
    assert meter.end("stopped") is not None
    assert meter.card_metadata()
    assert meter.record is not None
    assert meter.record.state == "stopped" == meter.epochs[0].state


@pytest.mark.slow
def test_a_card_keeps_what_it_has_and_unknown_grams_are_absent(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("---\nlicense: mit\n---\n\n# Mine\n")
    known, unknown = EpochMeter(meter="cpu_time", grams_per_kwh=100.0), EpochMeter(meter="cpu_time")
    for meter in (unknown, known):
        meter.begin()
        burn(0.02)
        meter.end()
        assert meter.write_card(card) is (meter is known)
        assert ("co2_eq_emissions" in card.read_text()) is (meter is known)
    text = card.read_text()
    assert "license: mit" in text
    assert text.endswith("# Mine\n")
    assert known.record is not None
    assert known.record.joules is not None
    emissions = known.card_metadata()["co2_eq_emissions"]
    assert emissions["emissions"] == pytest.approx(known.record.joules / 3.6e6 * 100, rel=1e-4)
    assert "energy estimated (cpu_time)" in emissions["source"]


def test_a_cap_needs_a_meter_and_an_energy() -> None:
    with pytest.raises(EnergyUnknownError, match="joulefront doctor"):
        EpochMeter("5Wh", Discovery((), ())).begin()
    with pytest.raises(ValueError, match="cap"):
        EpochMeter("5")
    with pytest.raises(RuntimeError, match="after a training"):
        EpochMeter().card_metadata()
    early = EpochMeter("5Wh", "cpu_time")
    for call in (early.begin_epoch, early.spent):  # else there would be no cap
        with pytest.raises(RuntimeError, match=r"call begin\(\) first"):
            call()
    assert not EpochMeter().spent()
    unknown = EpochMeter(meter=Discovery((), ()), grams_per_kwh=100.0)  # without a cap it is shown as unknown
    unknown.begin()
    unknown.end()
    assert unknown.card_metadata() == {}


def test_a_library_that_is_not_installed_is_named() -> None:
    class Callback(Metered):
        library = (object, "keras")

    with pytest.raises(ImportError, match="pip install keras"):
        Callback("5Wh")


@pytest.mark.slow
def test_keras_has_the_energy_in_its_history_and_stops_at_the_cap(tmp_path: Path) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="keras is not installed (pip install keras)")
    from joulefront.search.integrations.keras import EnergyCallback

    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(loss="mse")
    data: Any = np.zeros((64, 3), dtype="float32"), np.zeros(64, dtype="float32")
    callback = EnergyCallback(meter="cpu_time", grams_per_kwh=100.0, card=tmp_path / "README.md")
    history = model.fit(*data, epochs=2, verbose=0, callbacks=[callback]).history
    assert len(history["energy_joules"]) == 2
    assert history["energy_total_joules"] == sorted(history["energy_total_joules"])
    assert "co2_eq_emissions" in (tmp_path / "README.md").read_text()
    capped = EnergyCallback("1mJ", "cpu_time")
    assert len(model.fit(*data, epochs=9, verbose=0, callbacks=[capped]).history["loss"]) == 1
    assert capped.energy.stopped is not None


@pytest.mark.slow
def test_lightning_measures_epochs_stops_at_the_cap_and_bills_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pl = pytest.importorskip("pytorch_lightning", reason="pytorch-lightning is not installed (pip install pytorch-lightning)")
    from pytorch_lightning.demos.boring_classes import BoringModel, RandomDataset

    from joulefront.search.integrations.lightning import EnergyCallback

    monkeypatch.chdir(tmp_path)

    def fit(callback: EnergyCallback, model: Any, **more: Any) -> None:
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        loader = torch.utils.data.DataLoader(RandomDataset(32, 64), batch_size=8)
        pl.Trainer(max_epochs=4, accelerator="cpu", log_every_n_steps=8, callbacks=[callback], **{**quiet, **more}).fit(model, loader)

    whole = EnergyCallback(meter="cpu_time", grams_per_kwh=100.0, card="card.md")
    fit(whole, BoringModel(), logger=[pl.loggers.CSVLogger(name) for name in ("logs", "more")])
    assert len(whole.energy.epochs) == 4
    for name in ("logs", "more"):
        assert "energy_joules" in next(Path(name).rglob("metrics.csv")).read_text()
    assert "co2_eq_emissions" in Path("card.md").read_text()
    capped = EnergyCallback("1mJ", "cpu_time")
    fit(capped, BoringModel())
    assert len(capped.energy.epochs) == 1
    assert capped.energy.stopped is not None

    class Broken(BoringModel):  # type: ignore[misc]  # untyped
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise RuntimeError("broken")

    failed = EnergyCallback(meter="cpu_time")
    with pytest.raises(RuntimeError, match="broken"):
        fit(failed, Broken())
    assert failed.energy.record is not None
    assert failed.energy.record.state == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lightning_training", "transformers_training", "keras_training"])
def test_a_script_of_at_most_25_lines_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = {"lightning_training": "pytorch_lightning"}.get(name, name.removesuffix("_training"))
    os.environ.setdefault("KERAS_BACKEND", "torch")
    pytest.importorskip(package, reason=f"{package} is not installed")
    if package == "transformers":
        pytest.importorskip("accelerate", reason="accelerate, which the Trainer needs, is not installed")
    monkeypatch.chdir(tmp_path)
    assert len((SCRIPTS / f"{name}.py").read_text().splitlines()) <= 25
    runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert "epoch 3: " in out
    assert "co2_eq_emissions:" in out
