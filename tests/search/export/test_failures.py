"""An export that is not good leaves no trace, and says in one line why and what to do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from joulefront.search.export import FORMATS, ExportFailed, export, load_model
from joulefront.search.export.parity import DRIFT, _drift
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.recipes import FIXED

pytestmark = pytest.mark.slow

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


class Damaging:
    """Writes with another exporter and then spoils the file."""

    def __init__(self, inner: Any, spoil: Any) -> None:
        self.inner, self.spoil, self.name = inner, spoil, inner.name

    def write(self, trained: Any, folder: Path) -> str:
        file = self.inner.write(trained, folder)
        self.spoil(folder / file)
        return file

    def load(self, trained: Any, folder: Path) -> Any:
        return self.inner.load(trained, folder)

    def snippet(self, trained: Any, folder: Path) -> str:
        return self.inner.snippet(trained, folder)


class Once:
    """ONNX whose file is written once for the one network of these tests: they are about what becomes of it then."""

    inner, kept = FORMATS["onnx"], b""
    name, load, snippet = inner.name, inner.load, inner.snippet

    def write(self, trained: Any, folder: Path) -> str:
        if not Once.kept:
            Once.kept = (folder / self.inner.write(trained, folder)).read_bytes()
        (folder / "model.onnx").write_bytes(Once.kept)
        return "model.onnx"


def perturb_onnx(amount: float) -> Any:
    """Move the last bias of a graph: every output changes by ``amount``."""

    def spoil(file: Path) -> None:
        graph = onnx.load(file)
        bias = next(tensor for tensor in graph.graph.initializer if list(tensor.dims) == [10])
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(amount), bias.name))
        onnx.save(graph, file)

    return spoil


def perturb_safetensors(file: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    save_file({name: tensor + 0.01 if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}, file)


def nothing_left(folder: Path) -> bool:
    return list(folder.iterdir()) == []


@pytest.mark.parametrize(("exporter", "spoil"), [(Once(), perturb_onnx(1e-2)), (FORMATS["safetensors"], perturb_safetensors)])
def test_a_file_with_other_weights_fails_the_check_and_is_not_kept(make, tmp_path, exporter, spoil):
    with pytest.raises(ExportFailed, match=r"trial 7 .* outputs differ by up to .* Nothing was written; "):
        export(**make("convnet").arguments, to=Damaging(exporter, spoil), out=tmp_path / "model")
    assert nothing_left(tmp_path)


def test_the_tolerance_is_where_it_is_said_to_be(make, tmp_path):
    exported = export(**make("convnet").arguments, to=Damaging(Once(), perturb_onnx(5e-5)), out=tmp_path / "below")
    assert 4e-5 < exported.check.max_abs_difference < 1e-4
    with pytest.raises(ExportFailed, match="differ"):
        export(**make("convnet").arguments, to=Damaging(Once(), perturb_onnx(2e-4)), out=tmp_path / "above")


def test_a_failed_export_leaves_the_earlier_one_as_it_was(make, tmp_path):
    out = tmp_path / "model"
    export(**make("convnet").arguments, to=Once(), out=out)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(ExportFailed):
        export(**make("convnet").arguments, to=Damaging(Once(), perturb_onnx(1.0)), out=out)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_a_file_that_cannot_be_read_back_is_not_kept(make, tmp_path):
    cut = Damaging(Once(), lambda file: file.write_bytes(file.read_bytes()[:100]))
    with pytest.raises(ExportFailed, match="cannot be read back"):
        export(**make("convnet").arguments, to=cut, out=tmp_path / "model")
    assert nothing_left(tmp_path)


def test_an_interrupt_leaves_nothing(make, tmp_path):
    def interrupt(file: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(**make("convnet").arguments, to=Damaging(Once(), interrupt), out=tmp_path / "new" / "model")
    assert nothing_left(tmp_path)


def test_weights_of_another_trial_are_noticed_by_their_quality(make, tmp_path):
    ready = make("convnet").but(quality={"accuracy": 0.999})
    with pytest.raises(ExportFailed, match=r"rebuilt model has validation accuracy 0\.\d+, but trial 7 was measured at 0\.9990"):
        export(**ready.arguments, to="safetensors", out=tmp_path / "model")
    assert nothing_left(tmp_path)


def test_weights_of_another_architecture_are_refused(make, tmp_path):
    ready = make("convnet").but(params={"family": "convnet", "width": 9, "learning_rate": 0.01})
    with pytest.raises(ExportFailed, match="do not fit the model that space 'tiny' builds for trial 7"):
        export(**ready.arguments, to="safetensors", out=tmp_path / "model")


def test_a_damaged_file_is_named_with_what_to_do(make, tmp_path):
    ready = make("convnet").but(artifact_sha256="0" * 64)
    with pytest.raises(ExportFailed, match=r"\S+ is damaged: .*SHA-256.* Restore it from a copy, pick another trial") as caught:
        export(**ready.arguments, to="safetensors", out=tmp_path / "model")
    assert str(ready.weights) in str(caught.value)
    assert nothing_left(tmp_path)


def test_dropped_weights_say_that_only_the_front_is_kept(make, tmp_path):
    arguments = make("convnet").arguments | {"weights": tmp_path / "gone.weights"}
    with pytest.raises(ExportFailed, match=r"weights of trial 7 are gone .* only trials on the front are kept"):
        export(**arguments, to="safetensors", out=tmp_path / "model")


def test_a_failed_trial_has_nothing_to_export(make, tmp_path):
    with pytest.raises(ValueError, match="trial 7 must be complete to be exported, got failed"):
        export(**make("convnet").but(state="failed").arguments, to="safetensors", out=tmp_path / "model")


def test_an_unknown_format_lists_the_known(make, tmp_path):
    with pytest.raises(ValueError, match="--to must be one of onnx, pt2, safetensors, skops, native, got 'tflite'"):
        export(**make("convnet").arguments, to="tflite", out=tmp_path / "model")


@pytest.mark.parametrize(
    ("family", "task", "to", "remedy"),
    [
        ("convnet", "digits", "skops", "--to safetensors or --to pt2 or --to onnx"),
        ("convnet", "digits", "native", "--to safetensors or --to pt2 or --to onnx"),
        ("forest", "rows", "native", "--to skops or --to onnx"),
        ("forest", "rows", "pt2", "--to skops or --to onnx"),
        ("forest", "rows", "safetensors", "--to skops or --to onnx"),
    ],
)
def test_a_format_for_the_other_kind_of_model_names_the_right_ones(make, tmp_path, family, task, to, remedy):
    with pytest.raises(ExportFailed, match=f"which --to {to} does not write; use {remedy}"):
        export(**make(family, task).arguments, to=to, out=tmp_path / "model")
    assert nothing_left(tmp_path)


class Eigenvalues(nn.Module):
    """Uses an operator that ONNX does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(x)
        return y + torch.linalg.eigvals(y.detach()[:, :, None] * torch.ones(10)).real * 1e-3


class Branching(nn.Module):
    """Takes a way that depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(x)
        return y if y.sum() > 0 else -y


class Undefined(nn.Linear):
    """Gives numbers until it does not."""

    factor = 1.0

    def __init__(self) -> None:
        super().__init__(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.factor


def test_a_model_of_no_numbers_is_called_that(make, tiny_space, tmp_path, monkeypatch):
    class Odd(tiny_space):
        def build(self, candidate: Any, task: Any) -> Any:
            return Undefined()

    ready = make("odd", "rows", space=Odd(("odd",), name="Undefined"), width=2)
    monkeypatch.setattr(Undefined, "factor", torch.nan)
    with pytest.raises(ExportFailed, match="trial 7 gives NaN or infinite outputs on the validation data; pick another trial"):
        export(**ready.arguments, to="onnx", out=tmp_path / "model")


@pytest.mark.parametrize(
    ("module", "to", "message"),
    [
        (Eigenvalues, "onnx", r"operator aten.linalg_eig has no translation to ONNX; use --to safetensors or --to pt2"),
        (Branching, "onnx", r"cannot be written as ONNX: .*data-dependent.*; use --to safetensors or --to pt2"),
        (Branching, "pt2", r"cannot be traced by torch.export: .*data-dependent.*; use --to safetensors"),
    ],
)
def test_a_model_that_cannot_be_exported_gets_one_line_with_cause_and_remedy(make, tiny_space, tmp_path, capfd, module, to, message):
    class Odd(tiny_space):
        def build(self, candidate: Any, task: Any) -> Any:
            return module()

    ready = make("odd", "rows", space=Odd(("odd",), name=module.__name__), width=2)
    capfd.readouterr()
    with pytest.raises(ExportFailed, match=message) as raised:
        export(**ready.arguments, to=to, out=tmp_path / "model")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400
    assert raised.value.details  # the whole story is there for --debug
    assert capfd.readouterr() == ("", "")
    assert nothing_left(tmp_path)


def test_an_estimator_without_converter_is_named(make, tiny_space, tmp_path):
    from sklearn.neighbors import NearestCentroid

    class Odd(tiny_space):
        def build(self, candidate: Any, task: Any) -> Any:
            return NearestCentroid()

    ready = make("odd", "rows", space=Odd(("odd",), name="odd"), width=2)
    with pytest.raises(ExportFailed, match=r"skl2onnx has no converter for NearestCentroid; use --to skops"):
        export(**ready.arguments, to="onnx", out=tmp_path / "model")


def test_a_folder_with_other_things_is_refused_before_any_work(make, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"is not empty \(notes.txt\) and holds no earlier export"):
        export(**make("convnet").arguments, to="safetensors", out=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_a_foreign_config_is_no_earlier_export(make, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="holds no earlier export"):
        export(**make("convnet").arguments, to="safetensors", out=tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {"model_type": "bert"}


def test_an_earlier_export_is_replaced_and_what_others_put_there_stays(make, tmp_path):
    export(**make("convnet").arguments, to="safetensors", out=tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    exported = export(**make("convnet").arguments, to="pt2", out=tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {*exported.files, "notes.txt"}
    assert "model.safetensors" not in exported.files


def test_what_a_killed_export_left_does_not_block_the_next(make, tmp_path):
    (tmp_path / ".joulefront-export-abc").mkdir()
    assert export(**make("convnet").arguments, to="pt2", out=tmp_path).file == "model.pt2"


def test_a_file_as_folder_is_refused(make, tmp_path):
    (tmp_path / "model").write_text("")
    with pytest.raises(ValueError, match="is a file; give a folder"):
        export(**make("convnet").arguments, to="safetensors", out=tmp_path / "model")


def test_a_folder_below_a_file_is_refused_before_any_work(make, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        export(**make("convnet").arguments, to="safetensors", out=tmp_path / "file" / "model")


@pytest.mark.skipif(ROOT, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(make, tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ValueError, match="cannot be written"):
            export(**make("convnet").arguments, to="safetensors", out=tmp_path / "model")
    finally:
        tmp_path.chmod(0o700)


def test_a_refused_write_is_reported_as_such(make, tmp_path, monkeypatch):
    def refuse(*_: Any, **__: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(ValueError, match=r"cannot be written \(Permission denied\); give another folder"):
        export(**make("convnet").arguments, to="safetensors", out=tmp_path / "model")


def test_where_classes_count_alike_a_decision_in_a_rare_one_is_no_other_model():
    assert _drift(np.repeat([0, 1], [190, 10])) == pytest.approx(0.1)
    assert _drift(np.repeat([0, 1], [5000, 5000])) == DRIFT
    assert _drift(np.repeat([[0.0, 1.0], [1.0, 0.0]], [95, 5], axis=0)) == pytest.approx(0.2)


def test_a_damaged_export_is_refused_in_one_line_and_nothing_that_it_names_is_loaded(make, tmp_path):
    space = Mlp(recipe=FIXED)
    ready = make("mlp", "rows", space=space, params=dict(space.defaults()), epochs=1)
    folder = tmp_path / "model"
    export(**ready.arguments, to="safetensors", out=folder)
    load_model(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    huge = (1 << 60).to_bytes(8, "little")
    for name, content in {
        "model.safetensors": [b"", huge + b"{}", (folder / "model.safetensors").read_bytes()[:-8]],
        "classes.json": [b"7", b"{", b'["a"]'],
        "preprocessing.json": [b"\xff"],
        "config.json": [
            b"[]",
            b"[" * 100_000,
            *(
                json.dumps({**config, **changed}).encode()
                for changed in (
                    {"builder": "joulefront.spaces.weights:Path"},
                    {"builder": config["builder"].replace("mlp:", "nothing:")},
                    {"builder": "joulefront.spaces.convnet:Convnet"},
                    {"architecture": None},
                    {"task": {**config["task"], "shape": [10**6] * 3}},
                    {"task": []},
                )
            ),
        ],
    }.items():
        before = (folder / name).read_bytes()
        for damage in content:
            (folder / name).write_bytes(damage)
            with pytest.raises(
                ValueError, match=r"model' (is damaged, or of another version \(.*\); export the model again|holds)|needs"
            ) as said:
                load_model(folder)
            assert len(str(said.value).splitlines()) == 1, damage
        (folder / name).write_bytes(before)
    load_model(folder)


def test_weights_are_not_loaded_into_another_model_of_the_same_shapes_and_those_of_earlier_versions_are_loaded(make, tmp_path):
    ready = make("mlp", "rows", space=Mlp(recipe=FIXED), params=dict(Mlp(recipe=FIXED).defaults()), epochs=1)
    folder = export(**ready.arguments, to="safetensors", out=tmp_path / "model").path
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    other = {"relu": "gelu"}.get(config["architecture"]["activation"], "relu")
    for changed in ({"activation": other}, {"width": 10**9}):
        text = json.dumps({**config, "architecture": {**config["architecture"], **changed}})
        (folder / "config.json").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"config.json is of another model\); export the model again"):
            load_model(folder)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    before = load_model(folder).state_dict()
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors", metadata={"format": "pt"})
    assert all(torch.equal(tensor, before[name]) for name, tensor in load_model(folder).state_dict().items())
