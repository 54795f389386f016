"""Data of one's own through the command line: a table with numbers to predict, images that are found at the second attempt."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from joulefront.search.cli import main
from joulefront.search.records.run_folder import RunFolder

pytestmark = pytest.mark.slow


def write_table(path: Path) -> None:
    random = np.random.default_rng(0)
    size, rooms = random.uniform(30, 200, 240), random.integers(1, 7, 240)
    town = random.choice(["Lyon", "Oslo", "Graz"], 240)
    price = 3000 * size + 20_000 * rooms + 40_000 * (town == "Oslo") + random.normal(0, 5000, 240)
    pd.DataFrame({"size": size, "rooms": rooms, "town": town, "price": price, "kind": np.where(price > 400_000, "dear", "fair")}).to_csv(
        path, index=False
    )


@pytest.mark.parametrize(("target", "objective"), [("price", "r2"), ("kind", "accuracy")])
def test_the_column_decides_whether_families_classify_or_regress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, objective: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "houses.csv")
    main(["run", "table", "--data", "houses.csv", "--target", target, "--smoke", "--trials", "3", "--meter", "cpu_time", "--out", "r"])
    store = RunFolder.open("r")
    run = store.run()
    assert run.objectives == (objective, "train_energy", "inference_energy")
    assert [trial.state for trial in run.trials] == ["complete"] * 3
    assert len({trial.params["family"] for trial in run.trials}) >= 2
    assert store.facts["origin"]["options"] == {"data": str(tmp_path / "houses.csv"), "target": target, "smoke": True}


def test_images_that_are_found_at_the_second_attempt_are_those_of_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for number, name in enumerate(["blue", "red"]):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(24):
            pixels = random.integers(0, 120, (32, 32, 3))
            pixels[..., 2 - 2 * number] += 120
            Image.fromarray(pixels.astype("uint8")).save(tmp_path / "photos" / name / f"{index}.png")
    words = ["run", "images", "--pretrained", "no", "--smoke", "--meter", "cpu_time", "--out", "r"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--data", "fotos"])
    assert end.value.code == 2
    assert "error: no data at fotos" in capsys.readouterr().err
    main([*words, "--data", "photos"])
    assert RunFolder.open("r").facts["origin"]["options"]["data"] == str(tmp_path / "photos")
    monkeypatch.chdir("/")
    main(["export", str(tmp_path / "r"), "--pick", "best", "--to", "safetensors", "-o", str(tmp_path / "model")])
    assert json.loads((tmp_path / "model" / "classes.json").read_text()) == ["blue", "red"]
