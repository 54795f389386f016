"""One list of options: a verb takes groups, the user types flat options."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer
from typer.main import get_command

from joulefront.search.cli import app, with_implied_values
from joulefront.search.cli.options import LimitOptions, PlaceOptions, SessionLimitOptions, with_options


def options_of(verb: str) -> set[str]:
    """The long names of a verb's options."""
    command = get_command(app).commands[verb]  # type: ignore[attr-defined]  # a group has commands
    return {name for option in command.params for name in option.opts if name.startswith("--")}


def test_a_verb_gets_its_groups_filled_with_what_was_typed() -> None:
    seen: list[Any] = []

    @with_options
    def verb(limits: SessionLimitOptions, place: PlaceOptions, name: Annotated[str, typer.Option()] = "digits") -> None:
        seen.extend([limits, place, name])

    small = typer.Typer()
    small.command()(verb)
    small(["--trials", "3", "--stop-gain", "1%", "--pue", "1.5", "--name", "x"], standalone_mode=False)
    assert seen == [SessionLimitOptions(trials=3, stop_gain="1%"), PlaceOptions(pue=1.5), "x"]


def test_two_groups_of_a_verb_cannot_share_a_name() -> None:
    @dataclass(frozen=True)
    class Other:
        trials: int = 3

    def verb(limits: LimitOptions, other: Other) -> None: ...

    with pytest.raises(ValueError, match="trials"):
        with_options(verb)


def test_the_verbs_share_what_they_have_in_common() -> None:
    shared = {"--data", "--target", "--set", "--seed", "--sampler", "--objectives", "--trials", "--budget", "--pretrained", "--rungs"}
    shared |= {"--zone", "--intensity", "--pue", "--price", "--meter", "--cpu-watts", "--device", "--out"}
    shared |= {"--kind", "--drop", "--keep", "--categorical", "--missing", "--split", "--metric"}  # how a table is read
    assert shared == options_of("run") & options_of("estimate")
    assert options_of("run") & options_of("repeat") >= {"--idle", "--cool-down", "--anchor", "--meter", "--cpu-watts", "--device", "--seed"}
    assert "--trial-timeout" in options_of("run") & options_of("repeat")
    assert options_of("export") & options_of("optimise") == {"--pick", "--study", "--data", "--trust"}


def test_the_earlier_name_of_an_option_works_and_is_not_shown(call: Callable[..., Any]) -> None:
    assert {"--max-members", "--most"} <= options_of("repeat")
    help_text = call("repeat", "--help").out
    assert "--max-members" in help_text
    assert "--most" not in help_text


def test_pretrained_without_a_value_means_auto_and_with_one_that_value() -> None:
    assert with_implied_values(["run", "images", "--pretrained"]) == ["run", "images", "--pretrained=auto"]
    assert with_implied_values(["run", "images", "--pretrained", "--seed", "1"]) == ["run", "images", "--pretrained=auto", "--seed", "1"]
    for typed in (["run", "--pretrained", "hub"], ["run", "--pretrained=no"], ["measure", "--", "other", "--pretrained"], []):
        assert with_implied_values(typed) == typed
