from collections.abc import Callable
from pathlib import Path

import pytest

from joulefront.search import Study, load, run
from joulefront.search.carbon.intensity import Intensity, given_intensity, grams_co2e
from joulefront.search.carbon.zones import intensity_for
from joulefront.search.records.run_folder import RunFolder, StoreError
from joulefront.search.running.identity import study_folder

pytestmark = pytest.mark.slow

Maker = Callable[..., Study]


def test_a_run_that_goes_on_without_a_place_keeps_the_one_it_began_at(rings: Maker, tmp_path: Path) -> None:
    study = rings(sampler="random")
    run(study, out=tmp_path / "r", trials=2, intensity=intensity_for("FR"), pue=1.2)
    run(study, out=tmp_path / "r", trials=4)
    place = intensity_for("FR")
    trials = load(tmp_path / "r").trials
    assert len(trials) == 4
    for trial in trials:
        assert trial.grams_co2e == pytest.approx(grams_co2e(trial.train_joules, place, 1.2))


@pytest.mark.parametrize(
    ("place", "pue", "said"),
    [
        (intensity_for("PL"), 1.0, "(PL)"),
        (given_intensity(300.0, "FR"), 1.0, "300 g/kWh"),
        (intensity_for("FR"), 1.5, "PUE 1.2, now it is 1.5"),
    ],
)
def test_another_place_or_site_is_refused_before_anything_is_trained(
    rings: Maker, tmp_path: Path, place: Intensity, pue: float, said: str
) -> None:
    study = rings(sampler="random")
    run(study, out=tmp_path / "r", trials=1, intensity=intensity_for("FR"), pue=1.2)
    with pytest.raises(StoreError, match="joulefront price") as caught:
        run(study, out=tmp_path / "r", trials=2, intensity=place, pue=pue)
    assert said in str(caught.value)
    assert len(load(tmp_path / "r").trials) == 1
    run(study, out=tmp_path / "r", trials=2, intensity=intensity_for("FR"), pue=1.2)


def test_a_place_cannot_be_added_to_a_run_whose_first_grams_are_unknown(rings: Maker, tmp_path: Path) -> None:
    study = rings(sampler="random")
    run(study, out=tmp_path / "r", trials=1)
    with pytest.raises(StoreError, match="began without a place"):
        run(study, out=tmp_path / "r", trials=2, intensity=intensity_for("FR"))


@pytest.mark.parametrize(("place", "got"), [(None, "none"), (given_intensity(0.0), "0 g/kWh, at which every training emits the same")])
def test_grams_that_are_unknown_or_always_0_are_no_objective(rings: Maker, tmp_path: Path, place: Intensity | None, got: str) -> None:
    study = rings(sampler="random", objectives=("accuracy", "train_co2"))
    with pytest.raises(ValueError, match=f"'train_co2' needs a carbon intensity above 0, got {got}; add --zone FR"):
        run(study, out=tmp_path / "r", trials=1, intensity=place, meter="cpu_time")
    assert not (tmp_path / "r").exists()


def test_a_table_or_a_live_reading_that_moved_on_leaves_a_run_its_own_number(rings: Maker, tmp_path: Path) -> None:
    study = rings(sampler="random")
    for grams, trials in ((50.0, 1), (80.0, 2)):
        run(study, out=tmp_path / "r", trials=trials, intensity=Intensity(grams, "FR", "Electricity Maps"))
    for trial in load(tmp_path / "r").trials:
        assert trial.grams_co2e == pytest.approx(grams_co2e(trial.train_joules, Intensity(50.0, "FR")))


def test_a_start_that_failed_binds_nobody_to_its_place(rings: Maker, tmp_path: Path) -> None:
    study = rings(sampler="random")
    with study_folder(tmp_path / "r", study, None, intensity_for("FR"), 1.0, None, None):
        pass  # its process was killed before a session began
    run(study, out=tmp_path / "r", trials=1, intensity=intensity_for("PL"))
    assert RunFolder.open(tmp_path / "r").facts["intensity"]["zone"] == "PL"
