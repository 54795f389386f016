"""How many processes `pytest -n auto` takes."""

import os


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: many tests wait for a process, a lock or a clock."""
    return (os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count() or 1) + 1
