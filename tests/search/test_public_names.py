"""What a notebook imports from one place."""

import subprocess
import sys

import pytest

import joulefront.search as package


@pytest.mark.parametrize("name", package.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(package, name) is not None


def test_what_a_python_user_needs_is_there_and_a_wrong_name_lists_it() -> None:
    assert {"FreezeThawSampler", "MeasurementProtocol", "StoreError", "arrays", "table", "images", "repeat", "run"} <= set(package.__all__)
    with pytest.raises(AttributeError, match=r"no 'walk'; it has .*FreezeThawSampler"):
        _ = package.walk


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, joulefront.search; sys.exit(', '.join({'torch', 'optuna', 'numpy', 'pandas', 'sklearn'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "name"), [("joulefront.search.verbs.catalog", "find_study"), ("joulefront.search.training.table", "prepare")]
)
def test_what_older_model_cards_import_is_still_there(old: str, name: str) -> None:
    """In a process of its own, where nothing else has been imported before."""
    code = f"from {old} import {name} as old\nfrom joulefront.search import {name} as new\nassert old is new\n"
    code += "from joulefront.search.training.table import table, table_of\nassert table_of is table"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
