"""How whoever receives a model uses it: Python for the card that runs in the folder of the export."""

from __future__ import annotations

from .subject import Subject

_IMAGE_FILE = '''

def prepare(path):
    """Turn an image file into model input."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("L" if how["channels"] == 1 else "RGB")
    image = ImageOps.fit(image, (how["width"], how["height"]), Image.Resampling.BILINEAR)  # crops the centre, then resizes
    pixels = np.asarray(image, dtype="float32").reshape(how["height"], how["width"], how["channels"]).transpose(2, 0, 1)
    mean, std = (np.array(how[key], dtype="float32")[:, None, None] for key in ("mean", "std"))
    x = (pixels * how["scale"] - mean) / std
{resize}    return x[None]{flat}


'''
_RESIZE = """    size = tuple(how["input_shape"][1:])
    x = np.stack([np.asarray(Image.fromarray(channel).resize(size, Image.Resampling.BILINEAR)) for channel in x])
"""
_ARRAY = '''

def prepare(raw):
    """Turn examples ``(n, {raw})``, as the study loads them, into model input."""
    mean, std = (np.array(how[key], dtype="float32"){expand} for key in ("mean", "std"))
    x = (np.asarray(raw, dtype="float32") * how["scale"] - mean) / std
    return x{flat}


'''


def usage(subject: Subject, snippet: str) -> str:
    """Return the section of the card that shows how to prepare data, load the file and read the outputs.

    Args:
        subject: The model.
        snippet: The part of the format: from ``inputs`` to the outputs.
    """
    shape = ", ".join(str(side) for side in subject.input_shape)
    imports, prepare, call = _prepare(subject)
    after = _read_outputs(subject)
    # The code of a format begins with its imports; they go to the top with the others.
    lines = snippet.splitlines()
    theirs = [line for line in lines if line.startswith(("import ", "from "))]
    rest = "\n".join(line for line in lines if line not in theirs).strip("\n")
    inputs = f'inputs = np.zeros((1, {shape}), dtype="float32")  # put yours here{f": {call}" if call else ""}'
    loaded = 'how = json.load(open("preprocessing.json"))\n' if prepare else ""
    top = "\n".join(sorted({"import json", "import numpy as np", *imports, *theirs}, key=lambda line: (line.startswith("from"), line)))
    body = f"{top}\n\n{loaded}{prepare}{inputs}\n{rest}\n{after}"
    return f"The input is float32 `(n, {shape})`, prepared as `preprocessing.json` says. In this folder:\n\n```python\n{body}```"


def _prepare(subject: Subject) -> tuple[list[str], str, str]:
    """Imports, the code of ``prepare`` and a call of it; empty where the way from raw data to input is the user's own."""
    how = subject.task.preprocessing
    flat = "" if subject.is_torch else ".reshape(1, -1)"
    if how.get("kind") == "image" and how.get("mean") is not None and "resize" in how:
        own = tuple(subject.task.input_shape)
        resize = _RESIZE if subject.is_torch and subject.input_shape != own else ""
        return ["from PIL import Image, ImageOps"], _IMAGE_FILE.format(resize=resize, flat=flat), 'prepare("image.png")'
    if how.get("kind") == "table":
        imports = ["import pandas as pd", "from joulefront.search.training.table import prepare"]
        return imports, "\n", 'prepare(how, pd.read_csv("rows.csv"))'
    if how.get("kind") in ("image", "features") and how.get("mean") is not None and subject.candidate.recipe.resolution is None:
        image = len(subject.task.input_shape) == 3
        raw = ", ".join(str(side) for side in subject.task.input_shape)
        flat = "" if subject.is_torch else ".reshape(len(x), -1)"
        return [], _ARRAY.format(raw=raw, expand="[:, None, None]" if image else "", flat=flat), "prepare(raw)"
    return [], "", ""


def _read_outputs(subject: Subject) -> str:
    task, output = subject.task, subject.output_name
    if task.kind == "classification":
        return f'classes = json.load(open("classes.json"))\nprint([classes[i] for i in {output}.argmax(axis=1)])\n'
    if task.kind == "multilabel":
        border = 0 if subject.is_torch else 0.5
        named = f"[[classes[i] for i in row.nonzero()[0]] for row in {output} > {border}]"
        return f'classes = json.load(open("classes.json"))\nprint({named})\n'
    if task.kind == "anomaly" and subject.is_torch:
        return f"print({output}[:, 1] > {output}[:, 0])  # True: an anomaly\n"
    if task.kind == "anomaly":
        return f"print({output} < 0)  # True: an anomaly\n"
    if task.target_scale is not None:
        mean, deviation = task.target_scale
        return f"print({output}.reshape(-1) * {deviation!r} + {mean!r})  # in the unit of the data\n"
    return f"print({output}.reshape(-1))\n"
