"""What records say of a GPU of the fake driver."""

from __future__ import annotations

GPU = "gpu:GPU-00000000-fake"


def part(record, name=GPU):
    found = record.component(name)
    assert found is not None
    return found
