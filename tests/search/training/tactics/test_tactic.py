"""Settings become tactics; attaching and detaching is safe."""

import json
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

from joulefront.search.training.tactics.tactic import TACTICS, NoOp, attached, make_tactics, total_penalty, training_resolution

MINIMAL = {"power_limit": {"watts": 200.0}}


class Own(NoOp):
    """A tactic from outside of the package."""

    def __init__(self, *, strength=1.0):
        self.strength = strength

    def penalty(self):
        return self.strength

    def resolution(self, epoch, epochs, full):
        return full // 2 if epoch == 1 else None

    def detach(self):
        return {"own": self.strength}


class Broken(NoOp):
    """Fails on both sides and keeps what happened."""

    def __init__(self, log, fails_in=""):
        self.log, self.fails_in = log, fails_in

    def attach(self, model):
        self.log.append("attach")
        if self.fails_in == "attach":
            raise RuntimeError("no attach")

    def detach(self):
        self.log.append("detach")
        if self.fails_in == "detach":
            raise RuntimeError("no detach")
        return {}


@pytest.fixture
def outside(monkeypatch):
    module = types.ModuleType("somebodys_package")
    module.Own = Own
    monkeypatch.setitem(sys.modules, "somebodys_package", module)


@pytest.mark.parametrize("name", sorted(TACTICS))
def test_every_known_tactic_is_made_from_json_settings_and_does_all_that_a_tactic_does(name):
    (tactic,) = make_tactics({name: MINIMAL.get(name, {})})
    for step in ("attach", "start_epoch", "penalty", "resolution", "detach"):
        assert callable(getattr(tactic, step))
    assert all(isinstance(value, (int, float)) for value in tactic.detach().values())


def test_no_settings_make_no_tactics():
    assert make_tactics({}) == ()


def test_an_unknown_tactic_is_refused_with_the_names_of_the_known():
    with pytest.raises(ValueError, match=r"sparse_backprop, activation_sparsity, freeze.*got 'sparse'"):
        make_tactics({"sparse": {}})


@pytest.mark.parametrize("settings", [{"kep": 0.2}, {"keep": 0.2, "lambda": 1}])
def test_an_unknown_setting_is_refused_with_the_settings_of_the_tactic(settings):
    with pytest.raises(ValueError, match="'sparse_backprop' takes keep, schedule"):
        make_tactics({"sparse_backprop": settings})


def test_a_missing_setting_is_refused():
    with pytest.raises(ValueError, match=r"missing a required.*watts"):
        make_tactics({"power_limit": {}})


def test_a_tactic_from_another_package_needs_no_change_here(outside):
    (tactic,) = make_tactics({"somebodys_package:Own": {"strength": 2.5}})
    assert isinstance(tactic, Own)
    assert tactic.strength == 2.5
    with pytest.raises(ValueError, match="cannot be imported"):
        make_tactics({"somebodys_package:Other": {}})
    with pytest.raises(ValueError, match="cannot be imported"):
        make_tactics({"nobodys_package:Other": {}})


def test_penalties_add_up_and_none_is_not_zero():
    assert total_penalty([]) is None
    assert total_penalty([NoOp()]) is None
    assert total_penalty([Own(strength=1.5), NoOp(), Own(strength=2.0)]) == 3.5


def test_the_smallest_resolution_wins_and_the_full_one_is_the_default():
    assert training_resolution([NoOp(), Own()], 1, 2, 32) == 16
    assert training_resolution([NoOp(), Own()], 2, 2, 32) == 32
    assert training_resolution([], 1, 2, 32) == 32


def test_columns_are_there_after_the_block():
    with attached([Own(strength=3.0)], None) as columns:
        assert columns == {}
    assert columns == {"own": 3.0}


@pytest.mark.parametrize("fails_in", ["attach", "detach", "body"])
def test_every_tactic_is_detached_whatever_fails(fails_in):
    log, other = [], []

    def train():
        with attached([Broken(other), Broken(log, fails_in), *([] if fails_in == "attach" else [Broken(other)])], None):
            if fails_in == "body":
                raise RuntimeError("no body")

    with pytest.raises(RuntimeError, match=f"no {fails_in}"):
        train()
    assert log == ["attach", "detach"]
    assert other.count("attach") == other.count("detach") > 0


@pytest.mark.slow
def test_the_seam_itself_needs_no_torch():
    code = "import sys; import joulefront.search.training.tactics.tactic; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_columns_of_any_kind_are_numbers_or_texts_that_a_file_holds():
    class Reports(NoOp):
        def detach(self):
            return {
                "tensor": torch.tensor(1.5),
                "numpy": np.float32(0.5),
                "count": np.int64(3),
                "nan": float("nan"),
                "none": None,
                "list": [1],
            }

    with attached([Reports()], torch.nn.Linear(1, 1)) as columns:
        pass
    assert json.loads(json.dumps(columns, allow_nan=False)) == {
        "tensor": 1.5,
        "numpy": 0.5,
        "count": 3,
        "nan": None,
        "none": None,
        "list": "[1]",
    }
