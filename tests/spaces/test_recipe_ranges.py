import pytest

from joulefront.search.space import FixedTrial
from joulefront.spaces.recipes import Range, number, one_of, whole


class Asked:
    """Records what was asked for and answers with the lower end."""

    def __init__(self):
        self.calls = []

    def suggest_float(self, name, low, high, *, step=None, log=False):
        self.calls.append((name, low, high, step, log))
        return low

    def suggest_int(self, name, low, high, *, step=1, log=False):
        self.calls.append((name, low, high, step, log))
        return low

    def suggest_categorical(self, name, choices):
        self.calls.append((name, choices))
        return choices[0]


def test_a_pair_of_numbers_is_a_range_on_the_scale_of_its_field():
    trial = Asked()
    assert whole(trial, "width", (8, 64), log=True) == 8
    assert number(trial, "dropout", (0.0, 0.5)) == 0.0
    assert trial.calls == [("width", 8, 64, 1, True), ("dropout", 0.0, 0.5, None, False)]


def test_other_tuples_are_choices_and_fixed_values_are_no_parameters():
    trial = Asked()
    assert whole(trial, "width", (8, 16, 64)) == 8
    assert one_of(trial, "kernel", (3, 5)) == 3
    assert trial.calls == [("width", (8, 16, 64)), ("kernel", (3, 5))]
    assert (whole(trial, "a", 7), number(trial, "b", 0.5), one_of(trial, "c", None), one_of(trial, "d", ("x",))) == (7, 0.5, None, "x")
    assert whole(trial, "e", (4, 4)) == 4
    assert number(trial, "f", Range(2.0, 2.0)) == 2.0
    assert len(trial.calls) == 2


def test_an_explicit_range_keeps_its_own_scale_and_step():
    trial = Asked()
    whole(trial, "width", Range(8, 64, step=8), log=True)
    number(trial, "rate", Range(1e-3, 1.0, log=True))
    assert trial.calls == [("width", 8, 64, 8, False), ("rate", 1e-3, 1.0, None, True)]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Range(2, 1), "low <= high"),
        (lambda: Range(0, 1, log=True), "low > 0"),
        (lambda: Range(1, 8, log=True, step=1), "either logarithmic or has a step"),
        (lambda: whole(FixedTrial({}), "depth", (1, 2.5)), "depth needs whole numbers"),
        (lambda: one_of(FixedTrial({}), "kernel", ()), "kernel needs at least one choice"),
    ],
)
def test_a_range_that_nothing_can_be_drawn_from_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
