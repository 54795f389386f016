"""What was said in advance, in the report."""

from pathlib import Path

from joulefront.search.records.bill import Bill
from joulefront.search.records.run_folder import Run
from joulefront.search.records.trial import Trial
from joulefront.search.report.sections import estimate_section, projection_section


def run_of(trials, facts=None, joules=100.0):
    return Run(
        "r", Path(), ("accuracy", "train_energy"), ("maximize", "minimize"), (1, 3), tuple(trials), Bill(total_joules=joules), facts or {}
    )


def trial(number, epochs, joules, parent=None):
    first = epochs - len(joules) + 1
    return Trial(
        number, "complete", {}, epochs, parent=parent, curve=tuple({"epoch": first + k, "joules": x} for k, x in enumerate(joules))
    )


def test_nothing_is_shown_where_nothing_was_said():
    assert estimate_section(run_of([])) == ""
    assert projection_section(run_of([trial(0, 1, [3.0])])) == ""


def test_the_refined_estimate_stands_beside_what_it_became():
    said = {"share": 0.5, "done": 6, "joules": 80.0, "low_joules": 70.0, "high_joules": 90.0}
    said |= {"trials": 12.0, "low_trials": 12.0, "high_trials": 12.0}
    text = estimate_section(run_of([trial(n, 1, [1.0]) for n in range(12)], {"expected": [said]}))
    assert "at 50% of it, after 6 trials" in text
    assert "1.25" in text
    assert ">no<" in text  # 100 J are outside of 70 to 90 J
    assert ">yes<" not in text  # that 12 trials become 12 was a limit, no estimate


def test_a_projection_is_held_against_the_training_that_went_on():
    text = projection_section(run_of([trial(0, 1, [4.0]), trial(1, 3, [2.0, 2.0], parent=0)]))
    assert "50.0%" in text  # 12 J projected, 8 J paid
    assert "+50.0%" in text
