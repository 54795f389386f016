"""How many processes `pytest -n auto` takes; examples of properties have no time limit, since the machine may be busy."""

import os

from hypothesis import settings

settings.register_profile("joulefront", deadline=None)
settings.load_profile("joulefront")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: many tests wait for a process, a lock or a clock."""
    return (os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count() or 1) + 1
