"""The decision page of a run that may still train, served beside optuna-dashboard.

``/`` is the page, ``/data.json`` what it shows (the page asks for it every few seconds while it is looked at), and all else, from
``/dashboard``, is optuna-dashboard on a copy of the study, in memory: values with units, flat attributes, notes and our figure in place of
the one nested attribute that Optuna holds. What is written there is lost with it: nothing in the run folder is changed.
"""

from __future__ import annotations

import hashlib
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..export.usage import markdown
from ..formatting import energies, joules_text
from ..front import Front
from ..records.files import last_session
from ..records.run_folder import Run, RunFolder, StoreError
from ..records.trial import Trial
from ..study import OBJECTIVES
from .facts import how_energy_is_known, over_default, short_component
from .page import data_text, page_data, render

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    import optuna
    from optuna.trial import FrozenTrial

#: Our picture in optuna-dashboard, under its id.
FIGURE = "front"


@dataclass
class OptunaCopy:
    """A copy of a study in memory.

    Attributes:
        study: The Optuna study of the copy.
    """

    study: optuna.Study
    _ended: set[int] = field(default_factory=set)
    _told: str = ""

    @classmethod
    def of(cls, run: Run) -> OptunaCopy:
        """Make an empty copy whose objectives carry their units."""
        import optuna

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # metric names are marked experimental
            level = optuna.logging.get_verbosity()
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            study = optuna.create_study(
                storage=optuna.storages.InMemoryStorage(),
                study_name=run.name or "study",
                directions=[optuna.study.StudyDirection[name.upper()] for name in run.directions],
            )
            study.set_metric_names([with_unit(name) for name in run.objectives])
            optuna.logging.set_verbosity(level)
        return cls(study)

    def follow(self, run: Run, stored: Sequence[FrozenTrial]) -> None:
        """Take over new trials and those that have ended since, and write the notes and the figure again where the front has changed."""
        front = Front.of(run)
        storage = self.study._storage
        copied = {trial.number: trial for trial in storage.get_all_trials(self.study._study_id, deepcopy=False)}
        for frozen, trial in zip(stored, run.trials, strict=True):
            if frozen.number in self._ended:
                continue
            if frozen.number not in copied:
                storage.create_new_trial(self.study._study_id, template_trial=_template(frozen, attributes(trial)))
            else:
                self._end(copied[frozen.number], frozen, attributes(trial))
            if frozen.state.is_finished():
                self._ended.add(frozen.number)
        told = note(run, front)
        if told != self._told:
            self._tell(front, told)
            self._told = told

    def _end(self, mine: FrozenTrial, frozen: FrozenTrial, flat: dict[str, Any]) -> None:
        storage, number = self.study._storage, mine._trial_id
        for name, value in frozen.params.items():
            if name not in mine.params:
                distribution = frozen.distributions[name]
                storage.set_trial_param(number, name, distribution.to_internal_repr(value), distribution)
        for name, value in flat.items():
            storage.set_trial_user_attr(number, name, value)
        if frozen.state.is_finished():
            storage.set_trial_state_values(number, frozen.state, frozen.values)

    def _tell(self, front: Front, told: str) -> None:
        from optuna_dashboard import save_note, save_plotly_graph_object

        from .plotly_front import front_plotly

        save_note(self.study, told)
        if front.members:
            save_plotly_graph_object(self.study, front_plotly(front), graph_object_id=FIGURE)


def with_unit(name: str) -> str:
    """An objective with its unit: ``training energy (J)``.

    >>> with_unit("train_energy"), with_unit("accuracy"), with_unit("my_loss")
    ('training energy (J)', 'validation accuracy', 'my_loss')
    """
    _, unit, words = OBJECTIVES.get(name, ("", "", name))
    return f"{words} ({unit})" if unit else words


def attributes(trial: Trial) -> dict[str, Any]:
    """What is known of a trial as flat attributes, the unit in each name; what is unknown is left out."""
    joules = {"training energy (J)": trial.train_joules, "paid by the search (J)": trial.increment_joules}
    joules |= {"1,000 predictions (J)": trial.inference_joules_per_1000, "validation (J)": trial.energy.evaluation_joules}
    flat: dict[str, Any] = {**joules, "training energy is": trial.energy_quality if trial.train_joules is not None else None}
    flat |= {f"validation {name}": value for name, value in trial.quality.items()}
    flat |= {f"{short_component(name)} (J)": part.joules for name, part in trial.components.items()}
    flat |= {"training CO2e (g)": trial.grams_co2e, "trained for (s)": trial.energy.train_seconds, "epochs": trial.epochs}
    flat |= {"parameters": trial.parameters, "FLOPs of a prediction": trial.flops, "continues trial": trial.parent}
    flat |= {
        "reason": trial.reason,
        "beside other programs": True if trial.energy.contended else None,
        "default model": True if trial.is_default else None,
    }
    return {name: value for name, value in flat.items() if value is not None}


def note(run: Run, front: Front) -> str:
    """What a study found so far, as Markdown in which no text of a run is markup."""
    bill = run.bill.total_joules
    lines = [markdown(str((run.facts.get("study") or {}).get("description") or run.name)), "", "The page to decide on: [/](/)", ""]
    if front.members:
        named = {"sensible": front.sensible(), "best": front.best(), "knee": front.knee(), "cheapest": front.cheapest()}
        shown, unit = energies([trial.train_joules for trial in named.values()])
        for (word, trial), joules in zip(named.items(), shown, strict=True):
            quality = f"{markdown(front.objectives[0])} {front.quality_text(trial.values[0])}"
            lines.append(f"- **{word}**: trial {trial.number}, {quality}, {joules} {unit}")
        lines += ["", f"The sensible one is {markdown(front.choice.why)}."]
        lines += [markdown(gained)] if (gained := over_default(front)) else []
        lines.append(f"Energy is {markdown(how_energy_is_known(front))}; what could not be measured is counted nowhere.")
    if bill is not None:
        lines.append(f"The search has taken {joules_text(bill)} so far. {markdown(run.bill.gaps() or '')}".rstrip())
    return "\n".join(lines)


def _template(frozen: FrozenTrial, flat: dict[str, Any]) -> FrozenTrial:
    """A trial for the copy, with flat attributes in place of ours."""
    import optuna

    return optuna.trial.FrozenTrial(
        number=frozen.number,
        state=frozen.state,
        value=None,
        values=frozen.values,
        datetime_start=frozen.datetime_start,
        datetime_complete=frozen.datetime_complete,
        params=dict(frozen.params),
        distributions=dict(frozen.distributions),
        user_attrs=flat,
        system_attrs={},
        intermediate_values={},
        trial_id=frozen.number,
    )


#: A page that is looked at asks for news so often.
EVERY_SECONDS = 5.0
#: What is read stays valid for so many seconds, however many ask.
FRESH_SECONDS = 2.0
#: Names of this machine for itself: pages of other sites that found their way here by another name get nothing.
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass
class LiveRun:
    """What the page shows of a run folder now; it is read again only where a file of the folder has changed.

    Attributes:
        path: The run folder.
        data: The newest ``page_data``; None before the folder could be read.
        copy: The study for optuna-dashboard, once there are data.
        fresh_seconds: For so long nothing is read again.
    """

    path: Path
    data: dict[str, Any] | None = None
    copy: OptunaCopy | None = None
    _seen: tuple[Any, ...] = ()
    _read: float = float("-inf")
    fresh_seconds: float = FRESH_SECONDS
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def refresh(self) -> dict[str, Any]:
        """Return the newest data; those before it while the folder is being written.

        Raises:
            StoreError: If nothing could be read yet.
        """
        with self._lock:
            if time.monotonic() - self._read < self.fresh_seconds and self.data is not None:
                return self.data
            seen = self._files()
            try:
                if self.data is None or seen != self._seen or not seen:
                    folder = RunFolder.open(self.path)
                    study = folder.study(read_only=True)
                    stored, trials = folder.stored_trials(study)
                    run = folder.run(study, trials=trials)
                    self.copy = self.copy or OptunaCopy.of(run)
                    self.copy.follow(run, stored)
                    ended = "ended" in last_session(folder.facts)
                    self.data = page_data(run, ranking=ended)  # while it trains, the ranking would cost more than it tells
                    self._seen = seen  # not before: what could not be read is read again
            except (OSError, ValueError, RuntimeError) as error:
                if self.data is None:
                    if isinstance(error, OSError):
                        raise StoreError(f"{str(error.filename or self.path)!r} cannot be read ({error.strerror})") from error
                    raise StoreError(str(error)) from error
            self._read = time.monotonic()
            return self.data

    def _files(self) -> tuple[Any, ...]:
        """What differs whenever the folder does; empty for trials that lie elsewhere, which are always asked for."""
        names = ("study.json", "study.db", "study.db-wal", "bill.json", "repeats.json")
        files = [file.stat() for name in names if (file := self.path / name).is_file()]
        remote = not (self.path / "study.db").is_file()
        return () if remote else tuple((one.st_mtime_ns, one.st_size) for one in files)


def application(run: LiveRun, hosts: Iterable[str] | None = None, *, every_seconds: float = EVERY_SECONDS) -> WSGIApplication:
    """Return the page and optuna-dashboard as one WSGI application, for requests to the given hosts alone (None: to any)."""
    from optuna_dashboard import wsgi

    allowed = None if hosts is None else set(hosts)
    run.refresh()
    assert run.copy is not None
    dashboard: WSGIApplication = wsgi(run.copy.study._storage)

    def answer(start: StartResponse, status: str, kind: str, body: bytes, *headers: tuple[str, str]) -> list[bytes]:
        always = [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body))), ("Cache-Control", "no-cache")]
        start(status, [*always, ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"), *headers])
        return [body]

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        host = urlsplit(f"//{environ.get('HTTP_HOST', '')}").hostname or ""
        if allowed is not None and host not in allowed:
            return answer(start, "403 Forbidden", "text/plain", b"this address is for the machine itself\n")
        where = environ.get("PATH_INFO", "/")
        if where not in ("/", "/data.json"):
            run.refresh()
            return dashboard(environ, start)
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return answer(start, "405 Method Not Allowed", "text/plain", b"GET alone\n")
        try:
            data = run.refresh()
        except StoreError as error:
            return answer(start, "503 Service Unavailable", "text/plain", f"{error}\n".encode())
        if where == "/":
            return answer(start, "200 OK", "text/html", render(data, every_seconds=every_seconds).encode(errors="backslashreplace"))
        text = data_text(data).encode()
        tag = f'"{hashlib.sha256(text).hexdigest()[:32]}"'
        if environ.get("HTTP_IF_NONE_MATCH") == tag:
            start("304 Not Modified", [("ETag", tag), ("Cache-Control", "no-cache")])
            return []
        return answer(start, "200 OK", "application/json", text, ("ETag", tag))

    return app


def serve(path: Path, *, host: str = "127.0.0.1", port: int = 8080, started: Callable[[Any], None] | None = None) -> None:
    """Serve a run until Ctrl-C, or until ``started``, which gets the server, has it shut down.

    Raises:
        StoreError: If there is no such run.
        ValueError: If the port is taken or the address is not one of this machine.
    """
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    class Quiet(WSGIRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """A page that asks every few seconds is no news."""

    run = LiveRun(path, fresh_seconds=FRESH_SECONDS)
    app = application(run, LOOPBACK if host in LOOPBACK else None, every_seconds=EVERY_SECONDS)
    try:
        server = make_server(host, port, app, server_class=Server, handler_class=Quiet)
    except OSError as error:
        raise ValueError(f"--host {host} --port {port} cannot be served: {error.strerror or error}; give another") from error
    with server:
        address = f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}"
        print(f"{address}/ is the page, {address}/dashboard is optuna-dashboard on a copy of the study; Ctrl-C ends both", file=sys.stderr)
        if started is not None:
            started(server)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("ended", file=sys.stderr)
