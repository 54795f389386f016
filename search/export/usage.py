"""The part of a model card that shows how to predict: commands, code that runs unchanged, and what goes in and comes out."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..formatting import printable
from .predict import READS

if TYPE_CHECKING:
    from .model import TrainedModel

#: What is installed for a module that has another name or does not suffice.
_INSTALLED = {"skops": "skops scikit-learn", "sklearn": "scikit-learn"}
_FROM_FILES = """import sys

from predict import Model

model = Model(".")
for found in model.predict(sys.argv[1:]):
    print(found)  # a file that cannot be read is a message
"""


def markdown(text: str) -> str:
    r"""Return a text as Markdown in which nothing of it is markup, in one line: names may come from data and folders of somebody else.

    >>> print(markdown("<b> [a](x) | snake_case"), markdown("*a*"))
    \<b\> \[a\](x) \| snake_case \*a\*
    """
    return re.sub(r"([\\`*\[\]<>|~&$#]|(?<!\w)_|_(?!\w))", r"\\\1", printable(" ".join(text.split())))


def code(text: str) -> str:
    """Return a text as Markdown's code, in one line, between more backticks than it has.

    >>> code("a"), code("a`b")
    ('`a`', '`` a`b ``')
    """
    text = printable(" ".join(text.split()))
    longest = max(map(len, re.findall("`+", text)), default=0)
    return f"{'`' * (longest + 1)} {text} {'`' * (longest + 1)}" if longest else f"`{text or ' '}`"


def usage(trained: TrainedModel, takes: str, snippet: str | None) -> str:
    """Return the section of the card that shows how to predict files.

    ``takes`` is what the model takes, see ``Front.kind``; ``snippet`` is the part of a format, from ``inputs`` to the outputs, None where
    ``predict.py`` does it all.
    """
    lines = (snippet or "").splitlines()  # the code of a format starts with its imports; they move to the top
    theirs = [line for line in lines if line.startswith(("import ", "from "))]
    own = takes == "inputs" and snippet is not None
    modules = [line.split()[1].partition(".")[0] for line in theirs]
    needed = [_INSTALLED.get(one, one) for one in modules if one not in (*sys.stdlib_module_names, "my_study")]
    needed = [*([] if own else ["onnxruntime"]), "numpy", READS[takes][1], *needed]
    needed += ["'joulefront[text]'"] if takes == "table" and texts_in(trained.task.preprocessing) else []
    packages = f"pip install {' '.join(dict.fromkeys(needed))}"
    if snippet is None:
        return (
            "Label and probability, or the value, of files; `--csv` and `--json` print it so:\n\n"
            f"```\n{packages}\npython predict.py FILE...\n```\n\n"
            f"{_inputs(trained, takes)} {_outputs(trained, takes)} What a file is before the graph is told by its metadata, which "
            f"`predict.py` reads. From Python, in this folder, with the files as arguments:\n\n```python\n{_FROM_FILES}```"
        )
    shape = ", ".join(map(str, trained.input_shape))
    rest = "\n".join(line for line in lines if line not in theirs).strip("\n")
    imports = {"import json", "import sys", *theirs} | (set() if own else {"from predict import Model"})
    imports |= {"import numpy as np"} if own or "np." in rest else set()
    top = "\n".join(sorted(imports, key=lambda line: (line.startswith("from"), line)))
    made = f"np.load(sys.argv[1])  # float32 (n, {shape})" if own else 'Model("prepare.onnx").prepared(sys.argv[1:])  # raw files'
    said = (
        f"The input is float32 `(n, {shape})`, prepared by your own study's code; the argument is a file of it by numpy.save ({packages})."
        if own
        else f"The input is float32 `(n, {shape})`; `prepare.onnx` makes it of raw files, the arguments ({packages})."
    )
    body = f"{top}\n\ninputs = {made}\n{rest}\n{_read_outputs(trained)}"
    return f"{said} In this folder:\n\n```python\n{body}```"


def texts_in(how: Mapping[str, Any]) -> list[str]:
    """Return the columns of free text, whose features only joulefront makes."""
    return [column["name"] for column in how.get("columns", ()) if column["type"] == "text"]


def _inputs(trained: TrainedModel, takes: str) -> str:
    how = trained.task.preprocessing
    if takes == "image":
        side = f"{how['height']} x {how['width']}"
        return f"`model.onnx` takes `image`, uint8 `(batch, height, width, 3)` of any size, and crops and resizes it to {side} itself."
    if takes == "audio":
        return (
            f"`model.onnx` takes `waveform`, float32 `(batch, samples)` in [-1, 1], one channel at {how['sample_rate']:,} samples per "
            f"second, of any length; {how['seconds']:g} s about the middle count."
        )
    if takes == "table":
        named = ", ".join(f"{code(column['name'])} ({_meaning(column)})" for column in how["columns"] if column["type"] != "dropped")
        return f"`model.onnx` takes one input `(batch, 1)` for each column: {named}."
    shape = ", ".join(map(str, trained.task.input_shape if takes == "array" else trained.input_shape))
    if takes == "array":
        return f"`model.onnx` takes `raw`, float64 `(batch, {shape})`, in the units of the study's arrays; a file is one saved by numpy."
    return f"`model.onnx` takes `inputs`, float32 `(batch, {shape})`, prepared by the study's own code; a file is one saved by numpy."


def _meaning(column: dict[str, object]) -> str:
    if column["type"] == "numeric":
        reading = "date" if column.get("calendar") else str(column.get("reading"))
        kind = {"date": "seconds since 1970", "duration": "seconds", "truth": "0 or 1"}.get(reading, "number")
        return f"float64, {kind}, NaN for missing"
    return "text, empty for missing" if column["type"] == "categorical" else "features of free text"


def _outputs(trained: TrainedModel, takes: str) -> str:
    task = trained.task
    if takes == "inputs":
        return f"It gives `{trained.output_name}`."
    if task.kind == "regression":
        target = task.preprocessing.get("target")
        return "It gives `values (batch,)` in the unit of " + (f"the column {code(str(target))}." if target else "the data.")
    if trained.output_name == "scores":
        return "It gives scores `(batch, 2)`, normal and anomaly, which add up to 1 and are no probabilities; above 0.5 it is an anomaly."
    classes = task.classes or ("normal", "anomaly")
    names = ", ".join(map(markdown, classes[:10])) + (f", ... ({len(classes)} in all)" if len(classes) > 10 else "")
    return f"It gives a probability for each class `(batch, {task.outputs})`: {names}."


def _read_outputs(trained: TrainedModel) -> str:
    task, output = trained.task, trained.output_name
    if task.kind == "classification":
        return f'classes = json.load(open("classes.json", encoding="utf-8"))\nprint([classes[i] for i in {output}.argmax(axis=1)])\n'
    if task.kind == "multilabel":
        border = 0 if trained.is_torch else 0.5
        named = f"[[classes[i] for i in row.nonzero()[0]] for row in {output} > {border}]"
        return f'classes = json.load(open("classes.json", encoding="utf-8"))\nprint({named})\n'
    if task.kind == "anomaly":
        detector = output == "scores"  # of the others the second column is that of the anomaly
        return f"print({f'{output} < 0' if detector else f'{output}[:, 1] > {output}[:, 0]'})  # True: an anomaly\n"
    if task.target_scale is not None:
        mean, deviation = task.target_scale
        return f"print({output}.reshape(-1) * {deviation!r} + {mean!r})  # in the unit of the data\n"
    return f"print({output}.reshape(-1))\n"
