"""What keeps the suite short: processes for ``pytest -n auto``, and fixed costs of every test that are paid once or not at all.

Examples of properties have no time limit, since the machine may be busy.
"""

import atexit
import base64
import functools
import gc
import importlib
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded: matrices of tests are small, and every core has its tests
os.environ["XDG_STATE_HOME"] = STATE = tempfile.mkdtemp(prefix="jf-state-")  # storages that tests give are none of the user's
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded: its threads sleep, and spin on no core that others need

settings.register_profile("joulefront", deadline=None)
settings.load_profile("joulefront")

#: A picture of one pixel.
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAG7buVgAAAABJRU5ErkJggg==")

#: Kinds of models that this process has trained to be warm.
WARM = set[tuple[Any, ...]]()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than there are cores: many slow tests wait for a process, a lock or a clock; the fast ones never do."""
    cores = os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count() or 1
    return cores + (config.option.markexpr != "not slow")


def pytest_configure(config: pytest.Config) -> None:
    """Modules and tests stay: looking for garbage among them takes a third of the time that collecting them takes.

    Ctrl-C is heard also where the shell ignores it for its background jobs, and by the children of tests. Who will load everything begins
    with skops: as it loads it looks for thousands of names in each module that is there. The warnings of Optuna are named here: among the
    settings of pytest they would load it, and numpy, before the number of threads above is set.
    """
    config.addinivalue_line("filterwarnings", "ignore::optuna.exceptions.ExperimentalWarning")
    gc.disable()
    if hasattr(config, "workerinput"):
        importlib.import_module("skops.io")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    """Nothing is left behind."""
    shutil.rmtree(STATE, ignore_errors=True)


def pytest_collection_finish() -> None:
    """From now on there is garbage, but not among what is there already, until pytest has looked ten times for what was left behind."""
    gc.freeze()
    atexit.register(gc.unfreeze)  # libraries look at the end of the process
    gc.set_threshold(5_000, 20, 20)  # libraries that are loaded as they are needed are not searched again and again
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Workers and other processes of tests are forked from what is loaded by now."""
    if "joulefront.search.execution.worker" in sys.modules and not session.config.option.collectonly:
        used, from_helpers = "helpers.forked" in sys.modules, importlib.import_module("helpers.forked")
        for library in from_helpers.LOADED if used else ():
            with suppress(ImportError):
                importlib.import_module(library)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a thread of pytest-xdist waits for messages
            from_helpers.fork_server(leaving_pytest=True)


@pytest.fixture(scope="session", autouse=True)
def _migrations_are_read_once() -> None:
    """Optuna reads its ten scripts three times for each new database, which takes longer than to make the tables."""
    from optuna.storages._rdb.storage import _VersionManager as Versions

    any_database = Versions.__new__(Versions)
    any_database.url = "sqlite://"
    scripts = functools.cache(functools.partial(Versions._create_alembic_script, any_database))
    Versions._create_alembic_script = lambda self: scripts()  # type: ignore[method-assign]


@pytest.fixture(scope="session", autouse=True)
def _operators_are_listed_once() -> None:
    """Each export to ONNX lists the two thousand operators of torch and their translations again, for most of its time."""
    import torch

    export = torch.onnx.export

    def first(*arguments: Any, **options: Any) -> Any:
        from torch._export import utils
        from torch.onnx._internal.exporter._registration import ONNXRegistry as Registry

        torch.onnx.export = export
        Registry.from_torchlib = classmethod(functools.cache(Registry.from_torchlib.__func__))  # type: ignore[method-assign]
        listed, known = functools.cache(lambda count, list_all: list_all()), torch._C._dispatch_get_registrations_for_dispatch_key
        list_all = utils._materialize_cpp_cia_ops
        utils._materialize_cpp_cia_ops = lambda: listed(len(known("CompositeImplicitAutograd")), list_all)
        return export(*arguments, **options)

    torch.onnx.export = first


@pytest.fixture(scope="session", autouse=True)
def _devices_that_are_not_there_get_no_seed() -> None:
    """At each seed torch keeps three times for them who asked, which takes longer than to seed the CPU."""
    import torch

    for device in (torch.cuda, torch.mtia, torch.xpu):
        if not device.is_available():
            device.manual_seed_all = lambda seed: None


@pytest.fixture(autouse=True)
def _kinds_are_sought_and_warmed_up_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session trains each kind of model that 200 candidates show, for what the first one in a process pays; not in their own room."""
    if "execution" in request.path.parts:
        return
    from joulefront.search import hints
    from joulefront.search.execution import job

    train = job.WarmUp._train

    def first(self: job.WarmUp, own: Any, threads: int, watch: Any) -> None:
        kind = (type(self.space), own.get("family"), own.get("classical.estimator"))
        if kind not in WARM:
            train(self, own, threads, watch)
            WARM.add(kind)

    monkeypatch.setattr(job.WarmUp, "_train", first)
    monkeypatch.setattr(hints, "ENOUGH_DRAWS", 40)


@pytest.fixture(scope="session", autouse=True)
def _patterns_are_parsed_once() -> None:
    """At each call pandas parses the pattern again to see what Arrow would make of it: an eighth of the time of reading a small table."""
    from pandas.core.arrays._arrow_string_mixins import ArrowStringArrayMixin as Texts

    if hasattr(Texts, "_regex_nodes"):
        Texts._regex_nodes = staticmethod(functools.cache(Texts._regex_nodes))  # type: ignore[method-assign]


@pytest.fixture(scope="session", autouse=True)
def _verbs_are_read_once() -> None:
    """At each call typer reads again which options its verbs have."""
    import typer.main

    read = typer.main.get_command
    known = functools.cache(lambda app, shell: read(app))
    typer.main.get_command = lambda app: known(app, os.environ.get("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"))  # it decides on options


@pytest.fixture(autouse=True)
def _rankings_have_few_trees(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report ranks parameters by ten forests, most of its time; as many trees as for a user has the test of the ranking."""
    if request.path.name != "test_importance.py":
        monkeypatch.setattr("joulefront.search.report.energy_relations.TREES", 10)


@pytest.fixture(scope="session")
def _empty_database(_migrations_are_read_once: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of Optuna with its tables and no study."""
    from joulefront.search.records.optuna_storage import open_storage

    file = tmp_path_factory.mktemp("empty") / "study.db"
    open_storage(file, None, "create").remove_session()
    return file


@pytest.fixture(autouse=True)
def _tables_are_made_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, _empty_database: Path) -> None:
    """The database of a new run folder is a copy of an empty one, and a power cut may cost its last trials; not in the tests of records."""
    if "records" in request.path.parts:
        return
    from joulefront.search.records import database

    connect = database.connect

    def connected(file: Path, mode: database.Mode) -> sqlite3.Connection:
        if mode == "create" and not file.exists():
            with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".new-") as whole, suppress(FileExistsError):
                shutil.copyfile(_empty_database, whole.name)
                os.link(whole.name, file)  # at once: another thread may be making it, too
        connection = connect(file, mode)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    monkeypatch.setattr(database, "connect", connected)


@pytest.fixture(autouse=True)
def _runs_end_with_a_small_picture(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``run`` draws at its end is drawn in the tests that are marked ``picture``; ``plot`` always draws."""
    if request.node.get_closest_marker("picture") is not None:
        return
    from joulefront.search.report import front_view

    draw = front_view.save_front

    def small(source: Any, path: str | Path) -> Path:
        target = Path(path)
        if target.name != "front.png" or not (target.parent / "study.json").exists():
            return draw(source, path)
        target.write_bytes(PNG)
        return target

    monkeypatch.setattr(front_view, "save_front", small)
