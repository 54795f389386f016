"""The counts of damaged inputs are printed at the end of a file of tests."""

from collections import Counter
from collections.abc import Iterator

import pytest
from faults.fuzzing import TALLY


@pytest.fixture(scope="module", autouse=True)
def counts(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None and TALLY:
        columns = ("inputs", "accepted", "refused in one line", "raw errors")
        reporter.write_line("")
        for name, tally in {**TALLY, "all": sum(TALLY.values(), Counter())}.items():
            reporter.write_line(f"| {name} | " + " | ".join(str(tally[column]) for column in columns) + " |")
        TALLY.clear()
