import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from joulefront.search.execution import job
from joulefront.search.execution.job import EXAMPLES, InProcess, Outcome, WarmUp
from joulefront.search.hints import may_compile, one_of_each_kind
from joulefront.search.space import RandomTrial
from joulefront.search.training.arrays import arrays
from joulefront.search.training.splits_data import Excerpt
from joulefront.spaces.classical import DETECTORS, SUPERVISED, Classical
from joulefront.spaces.convnet import Convnet
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.own import Own
from joulefront.spaces.recipes import RecipeRanges
from joulefront.spaces.union import Union

pytestmark = pytest.mark.slow

#: Runs in a process of its own, because a library is imported once: what was loaded inside each trial's window, and what each cost.
SESSION = """
import json, sys
from joulefront.search.billing.account import Account
from joulefront.search.training.arrays import arrays
from joulefront.search import Study, run
from joulefront.spaces.classical import Classical
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.own import Own
from joulefront.spaces.recipes import RecipeRanges
from joulefront.spaces.union import Union
import numpy as np
import torch

def make(architecture, task):
    return torch.nn.Linear(5, task.outputs)

at_start, loaded = {}, []
opened, closed = Account.open, Account.close

def open_(self, number, *args, **kwargs):
    at_start[number] = set(sys.modules)
    return opened(self, number, *args, **kwargs)

def close(self, meter, *args, **kwargs):
    loaded.extend(sorted(set(sys.modules) - at_start[int(meter.window.name.split()[-1])]))
    return closed(self, meter, *args, **kwargs)

Account.open, Account.close = open_, close

def task():
    random = np.random.default_rng(0)
    inputs = random.standard_normal((200, 5)).astype("float32")
    return arrays(inputs, (inputs[:, 0] > 0).astype(int), name="sign")

for number, (space, trials) in enumerate(SPACES):
    study = Study(name="sign", task=task, space=space, sampler="random", rungs=(1, 3), trials=trials)
    run(study, out=f"{sys.argv[1]}{number}", workers=WORKERS)
print(json.dumps({"inside": loaded, "compiler": "torch._dynamo" in sys.modules}))
"""


#: One kind of estimator, and trials of it.
FOREST = "(Classical(estimators='random_forest', depths=(3, 5), leaves=1, features=0.5), 6)"
MANY = "(Union(Classical(), Mlp(recipe=RecipeRanges(threads=1)), Own(lambda trial: {}, make)), 12)"


def session(tmp_path, *spaces, workers=1):
    """One study after the other in a fresh process; what was loaded, and the trials of each."""
    code = SESSION.replace("SPACES", f"[{', '.join(spaces)}]").replace("WORKERS", str(workers))
    script = tmp_path / "session.py"
    script.write_text("if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in code.splitlines()))
    done = subprocess.run([sys.executable, str(script), str(tmp_path / "run")], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = [json.loads((tmp_path / f"run{number}" / "trials.json").read_text())["trials"] for number in range(len(spaces))]
    return json.loads(done.stdout.splitlines()[-1]), found


@pytest.fixture(scope="module")
def forest_and_many(tmp_path_factory):
    return session(tmp_path_factory.mktemp("here"), FOREST, MANY)


def test_no_library_is_loaded_inside_the_window_of_a_trial_and_no_compiler_at_all(forest_and_many):
    loaded, (_, trials) = forest_and_many
    assert loaded == {"inside": [], "compiler": False}
    assert len({trial["params"].get("classical.estimator") for trial in trials}) > 3


def test_a_start_loads_neither_scipy_nor_the_colours_of_error_pages_and_what_it_loads_is_not_searched_for_garbage(tmp_path):
    code = (
        "import gc, sys; from pathlib import Path\n"
        "from joulefront.search.cli.run import loading\n"
        "with loading(True):\n    assert not gc.isenabled()\n    import joulefront.search.running.run\n"
        "assert gc.isenabled() and gc.get_freeze_count() > 100_000\n"
        "from joulefront.search.records.optuna_storage import open_storage\n"
        "open_storage(Path(sys.argv[1]), None, 'create')\n"
        "print({'scipy.special', 'scipy.optimize', 'pygments.lexers.python', 'torch._dynamo'} & sys.modules.keys())\n"
        "import mako.ext.pygmentplugin\n"  # later it is there for who wants it
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "study.db")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "set()\n"), done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_trainings_of_a_process_cost_what_the_next_ones_cost_and_hold_no_start_of_it(workers, tmp_path, request):
    _, (trials, *_) = request.getfixturevalue("forest_and_many") if workers == 1 else session(tmp_path, FOREST, workers=workers)
    # With an import inside, the first one cost hundreds of times as much.
    costs = [trial["train_joules"] / trial["epochs"] for trial in trials if trial["record"]]
    assert max(costs[:workers]) < 10 * np.median(costs)
    seconds = [trial["record"]["seconds"] for trial in trials if trial["record"]]
    # With loading and warming up inside, it was a hundred times as long.
    assert max(seconds[:workers]) < 20 * np.median(seconds[workers:])


@pytest.fixture
def points():
    random = np.random.default_rng(0)
    inputs = random.standard_normal((300, 5)).astype("float32")
    return arrays(inputs, (inputs[:, 0] > 0).astype(int), name="sign")


def test_every_family_and_every_estimator_is_a_kind_and_the_first_is_that_of_the_seed():
    space = Union(Classical("anomaly"), Mlp(), Convnet())
    found = one_of_each_kind(space, 3)
    assert {*found} == {*(("classical", name) for name in (*SUPERVISED, *DETECTORS)), ("mlp", None), ("convnet", None)}
    assert all((params["family"], params.get("classical.estimator")) == kind for kind, params in found.items())
    draw = RandomTrial(3)
    space.sample(draw)
    assert next(iter(found.values())) == draw.params


def test_a_few_examples_are_shuffled_and_read_no_more_than_one_batch(points):
    class Watched:
        asked = 0

        def __len__(self):
            return len(points.train)

        def batches(self, batch_size, **options):
            for batch in points.train.batches(batch_size, **options):
                self.asked += 1
                yield batch

    watched = Watched()
    few = Excerpt(watched, EXAMPLES, most=1, seed=0)
    inputs, targets = few.arrays()
    assert inputs.shape == (len(few), 5)
    assert set(targets) == {0, 1}
    assert watched.asked == 1
    (batch,) = few.batches(32)
    assert len(batch[0]) == 32
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(inputs, points.train.arrays()[0][: len(few)])


def test_what_cannot_be_trained_does_not_end_the_warm_up(points):
    class Broken:
        name = "broken"
        built = 0

        def sample(self, trial):
            return Mlp().sample(trial)

        def build(self, candidate, task):
            self.built += 1
            raise RuntimeError("no such layer")

        def key(self, candidate):
            return candidate.key

    space = Broken()
    WarmUp(space, points, "cpu", 0).all(1)
    assert space.built == 2  # from scratch, and once more from the file that is not there


def test_a_kind_is_warmed_up_when_its_first_candidate_comes_and_once(points, monkeypatch):
    trained = []

    class Noted(InProcess):
        def train(self, job, **words):
            trained.append((job.params["family"], job.epochs))
            return Outcome(job.epochs)

    monkeypatch.setattr(job, "InProcess", Noted)
    space = Union(Mlp(), Convnet())
    warm_up, kinds = WarmUp(space, points, "cpu", 0), one_of_each_kind(space, 5)
    for kind in (("mlp", None), ("mlp", None), ("convnet", None)):
        warm_up.before(kinds[kind], 1)
    assert trained == [("mlp", 1), ("mlp", 2), ("convnet", 1), ("convnet", 2)]
    warm_up.all(1)
    assert len(trained) == 4


def test_each_text_of_an_own_model_is_a_kind_since_it_may_load_what_no_other_loads(points):
    used = []

    class Lazy(torch.nn.Linear):
        def forward(self, inputs):
            used.append(self.net)
            return super().forward(inputs)

    def make(architecture, task):
        model = Lazy(5, task.outputs)
        model.net = (architecture["net"], architecture["act"])
        return model

    def draw(trial):
        names = {name: trial.suggest_categorical(name, choices) for name, choices in (("net", ("a", "b")), ("act", ("x", "y", "z")))}
        return {**names, "width": trial.suggest_int("width", 1, 9)}

    space = Own(draw, make, RecipeRanges(threads=1))
    warm_up, kinds = WarmUp(space, points, "cpu", 0), one_of_each_kind(space, 0)
    assert {*kinds} == {("own", text) for text in "abxyz"}
    candidate = {**kinds[("own", "z")], "net": "b"}
    warm_up.before(candidate, 1)
    assert {"b", "z"} <= {text for pair in used for text in pair}
    used.clear()
    warm_up.before(candidate, 1)
    assert used == []


def test_the_user_can_break_it_off(points):
    class Slow(torch.nn.Module):
        def forward(self, inputs):
            raise KeyboardInterrupt

    class Space:
        name = "slow"

        def sample(self, trial):
            return Mlp().sample(trial)

        def build(self, candidate, task):
            return Slow()

        def key(self, candidate):
            return candidate.key

    with pytest.raises(KeyboardInterrupt):
        WarmUp(Space(), points, "cpu", 0).all(1)


def test_where_candidates_may_be_compiled_the_compiler_is_warmed_and_none_of_them_is_compiled(points, monkeypatch):
    asked = []
    monkeypatch.setattr(job, "_compile_something", lambda task, device, threads: asked.append(len(task.train)))
    torch._dynamo.utils.counters.clear()
    for choices in (False, (False, True)):
        space = Mlp(recipe=RecipeRanges(threads=1, compile=choices))
        assert may_compile(space) == (choices is not False)
        WarmUp(space, points, "cpu", 0).all(1)
    assert asked == [EXAMPLES]
    assert not torch._dynamo.utils.counters["stats"]
