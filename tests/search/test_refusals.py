"""Mistakes in Python and on the command line: each is refused before anything is spent, by a line with the rule and what was given."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from joulefront.search import FreezeThawSampler
from joulefront.search.carbon.forecast import IntensityCurve
from joulefront.search.carbon.intensity import Intensity
from joulefront.search.energy.sources.replay import Trace
from joulefront.search.energy.sources.wall import http_plug
from joulefront.search.running.baselines import MeasurementProtocol
from joulefront.search.training.arrays import arrays
from joulefront.search.training.audio import read_sound
from joulefront.search.training.fit import fit
from joulefront.search.training.recipe import Recipe
from joulefront.spaces.layers import BatchNorm
from joulefront.spaces.pretrained import freeze_stages
from joulefront.spaces.torchvision_zoo import feature_maps

ROWS, LABELS = np.zeros((8, 2), np.float32), np.arange(8) % 2
#: What is called, and how its refusal begins or goes on.
IN_PYTHON: dict[str, tuple[Callable[[], Any], str]] = {
    "shape of a curve": (lambda: IntensityCurve((0.0,), (56.0,), None, shape="cubic"), "shape must be 'linear' or 'step', got 'cubic'"),
    "scope of an intensity": (lambda: Intensity(56.0, scope="whole"), "scope must be 'lifecycle', 'direct' or 'unknown', got 'whole'"),
    "address of a plug": (lambda: http_plug("ftp://192.0.2.7"), "url must start with http:// or https://, got 'ftp://192.0.2.7'"),
    "trace without its component": (lambda: Trace.from_json({"t_ns": [1]}), r"a trace needs 'component' and 't_ns', got \['t_ns'\]"),
    "startup of the sampler": (lambda: FreezeThawSampler((1, 2), startup=1), "startup must be >= 2, got 1: a model needs two"),
    "rungs of no whole epochs": (lambda: FreezeThawSampler((1.5, 3)), r"rungs must be Sequence\[int\], got \(1.5, 3\) .*; write \[4, 12"),
    "seed below zero": (lambda: FreezeThawSampler((1, 2), seed=-1), "seed must be >= 0, got -1; leave it out"),
    "floor that is no number": (
        lambda: FreezeThawSampler((1, 2), min_accuracy=float("nan")),
        "min_accuracy must be a finite number, got nan",
    ),
    "quality as energy": (lambda: FreezeThawSampler((1, 2), energy=0), "energy must be >= 1, since objective 0 is the quality, got 0"),
    "ladders below zero": (lambda: FreezeThawSampler((1, 2), ladders=-1), "ladders must be >= 0, got -1"),
    "hedge without a model": (lambda: FreezeThawSampler((1, 2), hedge=0.5), "hedge must be from 0 to 0.2, got 0.5"),
    "ranges as pairs": (
        lambda: FreezeThawSampler((1, 2), search_space={"lr": (1, 2)}),
        r"search_space must be Mapping\[str, BaseDistribution\].*, got {'lr': \(1, 2\)} \(dict\)",
    ),
    "trials that are none": (lambda: FreezeThawSampler((1, 2), prior_trials=[1, 2]), r"prior_trials must be Sequence.*, got \[1, 2\]"),
    "splits of two shapes": (
        lambda: arrays(ROWS, LABELS, validation=(np.zeros((2, 3), np.float32), LABELS[:2])),
        r"all splits must have examples of one shape, got \(2,\) and \(3,\)",
    ),
    "empty recording": (lambda: read_sound(b""), "the recording is empty"),
    "epochs that were trained": (
        lambda: fit(nn.Linear(2, 2), arrays(ROWS, LABELS), Recipe(), epochs=2, start={"epochs": 2}),
        "epochs must be > 2, the epochs that are already trained, got 2",
    ),
    "normalisation of one value": (
        lambda: BatchNorm(3)(torch.zeros(3)),
        r"batch normalisation needs inputs \(b, channels, ...\), got \(3,\)",
    ),
    "nothing left to train": (
        lambda: freeze_stages(nn.Linear(2, 2), [["weight", "bias"]], (), "backbone"),
        "leaves nothing to train; freeze fewer stages",
    ),
    "network of another kind": (lambda: feature_maps(nn.Linear(2, 2), "mine"), "the feature maps of mine are unknown; use head='own'"),
    "cool-down beside others": (
        lambda: MeasurementProtocol(cool_down_seconds=5.0).check(2),
        "must be 0 with several workers, got 5 with 2",
    ),
}
ON_THE_COMMAND_LINE = {
    "--stop-gain 1% --no-stop": "give --stop-gain or --no-stop, not both",
    "--artifacts bucket": "--artifacts is for the workers of a --storage, got 'bucket' without one; leave it out",
    "--deadline 24h": "says how long trainings may wait for clean hours: add --carbon-aware",
}


@pytest.mark.parametrize("mistake", IN_PYTHON)
def test_a_mistake_in_python_is_refused_with_its_rule(mistake: str) -> None:
    call, said = IN_PYTHON[mistake]
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize("words", ON_THE_COMMAND_LINE)
def test_a_mistake_on_the_command_line_is_wrong_usage_in_one_line(call: Callable[..., Any], words: str) -> None:
    said = call("run", "digits", "--meter", "cpu_time", *words.split())
    assert said.code == 2
    assert ON_THE_COMMAND_LINE[words] in " ".join(said.err.split())
