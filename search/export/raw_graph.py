"""The whole way in one ONNX graph: raw image, row, waveform or array in, probabilities or values in the user's unit out.

``whole`` puts a front, which does what a task's ``preprocessing`` says, before the graph of a model, and behind it what turns its outputs
into answers. Names within the front begin with ``pre/``, those of the model with ``model/``, those behind it with ``post/``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..training.audio import FLOOR, Spectrogram, fourier_waves, mel_bands
from ..training.columns import LARGEST, MISSING
from ..training.estimator import is_outlier_detector
from ..training.table_encodings import STEPS as CIRCLE
from ..training.table_encodings import circle
from ..training.table_surprises import codes_as_numbers
from .model import TrainedModel, plain_estimator

#: Steps of Pillow's fixed-point weights for images of 8 bits. Source: Pillow, src/libImaging/Resample.c, PRECISION_BITS.
STEPS = float(2**22)
#: Weights of red, green and blue in grey, of 65,536. Source: Pillow, src/libImaging/Convert.c, L24 (ITU-R 601-2).
GREY = (19595, 38470, 7471)
_FLOAT, _DOUBLE, _INT64, _STRING, _UINT8 = 1, 11, 7, 8, 2  # element types of ONNX's TensorProto


@dataclass(frozen=True)
class Front:
    """What a graph takes: ``kind`` is ``image``, ``audio``, ``table`` or ``array``; None in its place means prepared ``inputs``."""

    kind: str
    inputs: Sequence[tuple[str, int, Sequence[int | str]]]


def front_of(preprocessing: Mapping[str, Any], shape: Sequence[int]) -> Front | None:
    """Return what a graph for raw data takes, None where the preprocessing of a task is not one of ours.

    ``shape`` is that of one example as the task hands it out.
    """
    kind = preprocessing.get("kind")
    if kind == "table":
        used = [column for column in preprocessing["columns"] if column["type"] != "dropped"]
        inputs: list[tuple[str, int, Sequence[int | str]]] = [(c["name"], *_of_column(c)) for c in used]
        inputs += [(f"{c['name']} words", _FLOAT, ["batch", len(c["words"])]) for c in used if "words" in c]  # no operator cuts texts
        return Front("table", inputs)
    if preprocessing.get("mean") is None or kind not in ("image", "audio", "features"):
        return None
    if kind == "audio":
        return Front("audio", [("waveform", _FLOAT, ["batch", "samples"])])
    if kind == "image" and shape[0] in (1, 3) and abs(preprocessing["scale"] * 255 - 1) < 1e-9:
        return Front("image", [("image", _UINT8, ["batch", "height", "width", 3])])
    return Front("array", [("raw", _DOUBLE, ["batch", *shape])])


def whole(core: Any, trained: TrainedModel, front: Front | None) -> Any:
    """Return the graph of a model, ``inputs`` -> raw outputs, with its front before and its answers behind.

    Without a front it still takes ``inputs``. The output is ``probabilities (batch, classes)``, of anomaly detectors ``scores (batch, 2)``,
    or ``values (batch,)`` in the unit of the data.
    """
    import onnx

    model = onnx.compose.add_prefix(core, "model/")
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    opsets[""] = max(15, opsets.get("", 0))  # what the converters of trees write for 9 means the same; the check sees to it
    opsets["ai.onnx.ml"] = max(3, opsets.get("ai.onnx.ml", 0))  # a LabelEncoder of texts; what skl2onnx writes for 1 means the same
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(*one) for one in opsets.items())
    before, behind = Nodes("pre/"), Nodes("post/")
    task = trained.task
    if front is None:
        before.add("Identity", "inputs", names=["model/inputs"])
        front = Front("inputs", [("inputs", _FLOAT, ["batch", *trained.input_shape])])
    else:
        _prepared(before, trained, front, "model/inputs")
    answer, width = _answers(behind, model.graph.output, trained)
    name, kind = ("values", _DOUBLE) if task.kind == "regression" else ("probabilities" if width > 0 else "scores", _FLOAT)
    shape = ["batch", abs(width)] if width else ["batch"]
    while name in {one[0] for one in front.inputs}:  # a column may be called so
        name = f"predicted {name}"
    behind.add("Cast", answer, names=[name], to=kind)
    graph = model.graph
    nodes = [*before.nodes, *graph.node, *behind.nodes]
    for field in (graph.node, graph.input, graph.output):
        del field[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*before.initializers, *behind.initializers])
    graph.input.extend(onnx.helper.make_tensor_value_info(*one) for one in front.inputs)
    graph.output.append(onnx.helper.make_tensor_value_info(name, kind, shape))
    return model


def preparation(trained: TrainedModel, front: Front, facts: Mapping[str, str]) -> Any:
    """Return the front alone as a graph: raw data -> ``prepared`` inputs of the model, with ``facts`` as its metadata."""
    import onnx

    nodes, name = Nodes("pre/"), "prepared"
    while name in {one[0] for one in front.inputs}:  # a column may be called so
        name = f"{name} inputs"
    _prepared(nodes, trained, front, name)
    takes = [onnx.helper.make_tensor_value_info(*one) for one in front.inputs]
    gives = onnx.helper.make_tensor_value_info(name, _FLOAT, ["batch", *trained.input_shape])
    graph = onnx.helper.make_graph(nodes.nodes, "preparation", takes, [gives], nodes.initializers)
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.helper.set_model_props(model, dict(facts))
    return model


def _prepared(nodes: Nodes, trained: TrainedModel, front: Front, name: str) -> None:
    make = {"image": _image, "audio": _audio, "table": _table, "array": _array}[front.kind]
    made = make(nodes, trained.task.preprocessing, trained)
    nodes.add("Identity", made if trained.is_torch else nodes.add("Flatten", made, axis=1), names=[name])


def core_of(model: Any, names: Sequence[str]) -> Any:
    """Return the model alone again, ``inputs`` -> raw outputs with these names, of what ``whole`` made."""
    import onnx

    core = onnx.ModelProto()
    core.CopyFrom(model)
    graph = core.graph
    kept = [node for node in graph.node if not node.name.startswith(("pre/", "post/"))]
    for field in (graph.node, graph.input, graph.output):
        del field[:]
    graph.node.append(onnx.helper.make_node("Identity", ["inputs"], ["model/inputs"]))
    graph.node.extend(kept)
    graph.input.append(onnx.helper.make_tensor_value_info("inputs", _FLOAT, None))
    graph.output.extend(onnx.ValueInfoProto(name=f"model/{name}") for name in names)
    return core


class Nodes:
    """Nodes and constants whose names begin alike."""

    def __init__(self, prefix: str) -> None:
        self.prefix, self.nodes, self.initializers = prefix, list[Any](), list[Any]()

    def add(self, kind: str, *inputs: Any, outputs: int = 1, names: list[str] | None = None, domain: str = "", **attributes: Any) -> Any:
        """Add a node; inputs that are no names become constants. Returns the name of its output, or of all of them."""
        import onnx

        label = f"{self.prefix}{kind}_{len(self.nodes)}"
        names = names or [f"{label}_{k}" for k in range(outputs)]
        given = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        self.nodes.append(onnx.helper.make_node(kind, given, names, name=label, domain=domain, **attributes))
        return names[0] if len(names) == 1 else names

    def constant(self, values: Any) -> str:
        """Add a constant; Python's numbers are int64 and float64."""
        import onnx

        name = f"{self.prefix}constant_{len(self.initializers)}"
        self.initializers.append(onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def append_to(self, graph: Any) -> None:
        """Put them behind the nodes of a graph."""
        graph.node.extend(self.nodes)
        graph.initializer.extend(self.initializers)


def resize_weights(before: int, after: int) -> np.ndarray:
    """Return the matrix ``(after, before)`` float32 that resizes a side, bilinear and antialiased, as ``torch`` and Pillow do."""
    scale = before / after
    support = max(scale, 1.0)
    centres = (np.arange(after)[:, None] + 0.5) * scale
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(before)[None] + 0.5 - centres) / support)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def _image(nodes: Nodes, how: Mapping[str, Any], trained: TrainedModel) -> str:
    """``image (b, h, w, 3)`` uint8 of any size -> inputs: colours, centre crop, Pillow's resize with its rounding, scale, statistics."""
    channels, height, width = (int(side) for side in trained.task.input_shape)
    x = nodes.add("Transpose", nodes.add("Cast", "image", to=_FLOAT), perm=[0, 3, 1, 2])
    if channels == 1:
        parts = nodes.add("Mul", x, np.array(GREY, np.float32).reshape(1, 3, 1, 1))
        summed = nodes.add("Add", nodes.add("ReduceSum", parts, np.array([1]), keepdims=1), np.float32(32768))
        x = nodes.add("Floor", nodes.add("Mul", summed, np.float32(1 / 65536)))
    sides = nodes.add("Cast", nodes.add("Shape", x), to=_DOUBLE)
    high, wide = (nodes.add("Gather", sides, axis) for axis in (2, 3))
    share = nodes.add("Min", nodes.add("Div", wide, float(width)), nodes.add("Div", high, float(height)))
    columns = nodes.add("Transpose", _weights(nodes, wide, share, width), perm=[1, 0])
    x = _whole_levels(nodes, nodes.add("MatMul", x, columns))  # the rows first, rounded in between, as ``decode`` does
    x = _whole_levels(nodes, nodes.add("MatMul", _weights(nodes, high, share, height), x))
    x = _standardised(nodes, x, how)
    size = trained.input_shape[1:] if trained.is_torch else (height, width)
    if tuple(size) != (height, width):
        x = nodes.add("MatMul", x, resize_weights(width, size[1]).T.copy())
        x = nodes.add("MatMul", resize_weights(height, size[0]), x)
    return str(x)


def _weights(nodes: Nodes, side: str, share: str, after: int) -> str:
    """Return the matrix ``(after, side)`` that crops a side of any length at its centre and resizes it."""
    span = nodes.add("Mul", share, float(after))
    first = nodes.add("Mul", nodes.add("Max", nodes.add("Sub", side, span), 0.0), 0.5)
    last = nodes.add("Min", side, nodes.add("Add", first, span))
    low, high = (nodes.add("Cast", end, to=_FLOAT) for end in (first, last))  # Pillow keeps a box in float32
    start, width = (nodes.add("Cast", one, to=_DOUBLE) for one in (low, nodes.add("Sub", high, low)))
    scale = nodes.add("Div", width, float(after))
    centres = nodes.add("Add", nodes.add("Mul", (np.arange(after) + 0.5)[:, None], scale), start)
    places = nodes.add("Add", nodes.add("Range", 0.0, side, 1.0), 0.5)
    distance = nodes.add("Div", nodes.add("Abs", nodes.add("Sub", places, centres)), nodes.add("Max", scale, 1.0))
    triangle = nodes.add("Max", nodes.add("Sub", 1.0, distance), 0.0)
    weights = nodes.add("Div", triangle, nodes.add("ReduceSum", triangle, np.array([1]), keepdims=1))
    steps = nodes.add("Floor", nodes.add("Add", nodes.add("Mul", weights, STEPS), 0.5))
    return str(nodes.add("Cast", nodes.add("Mul", steps, 1 / STEPS), to=_FLOAT))


def _whole_levels(nodes: Nodes, x: str) -> str:
    rounded = nodes.add("Floor", nodes.add("Add", x, np.float32(0.5)))
    return str(nodes.add("Clip", rounded, np.float32(0), np.float32(255)))


def _standardised(nodes: Nodes, x: str, how: Mapping[str, Any]) -> str:
    """``(x * scale - mean) / std`` of images by channel in float32, as ``normalised`` in ``splits_data.py``."""
    mean, deviation = (np.reshape(np.asarray(how[key], np.float32), (1, -1, 1, 1)) for key in ("mean", "std"))
    return str(nodes.add("Sub", nodes.add("Mul", x, np.float32(how["scale"]) / deviation), mean / deviation))


def _array(nodes: Nodes, how: Mapping[str, Any], trained: TrainedModel) -> str:
    own = tuple(trained.task.input_shape)
    mean, deviation = (np.reshape(np.asarray(how[key], np.float64), (1, -1) + (1,) * (len(own) - 1)) for key in ("mean", "std"))
    scaled = nodes.add("Mul", "raw", float(how["scale"]))  # in float64: raw numbers may be far from zero
    x = nodes.add("Cast", nodes.add("Div", nodes.add("Sub", scaled, mean), deviation), to=_FLOAT)
    if trained.is_torch and trained.input_shape != own:
        x = nodes.add("MatMul", x, resize_weights(own[2], trained.input_shape[2]).T.copy())
        x = nodes.add("MatMul", resize_weights(own[1], trained.input_shape[1]), x)
    return str(x)


def _audio(nodes: Nodes, how: Mapping[str, Any], trained: TrainedModel) -> str:
    """``waveform (b, n)`` at the rate of the task -> inputs: cut or padded to length, log-mel spectrogram, statistics."""
    sound = Spectrogram(**{name: how[name] for name in Spectrogram.__dataclass_fields__})
    length = nodes.add("Gather", nodes.add("Shape", "waveform"), np.array([1]))
    spare = nodes.add("Sub", length, np.array([sound.samples]))
    start = nodes.add("Div", nodes.add("Max", spare, np.array([0])), np.array([2]))
    cut = nodes.add("Slice", "waveform", start, nodes.add("Add", start, np.array([sound.samples])), np.array([1]))
    short = nodes.add("Max", nodes.add("Neg", spare), np.array([0]))
    first = nodes.add("Div", short, np.array([2]))
    ends = nodes.add("Concat", np.array([0]), first, np.array([0]), nodes.add("Sub", short, first), axis=0)
    padded = nodes.add("Pad", cut, ends)
    if how.get("waveform"):
        return _standardised(nodes, str(nodes.add("Unsqueeze", padded, np.array([1, 2]))), how)
    columns = sound.shape[2]
    waves = fourier_waves(sound.window)
    places = np.arange(columns)[:, None] * sound.hop + np.arange(sound.window)
    # In float64: a quiet band beside a loud one would show the rounding of the sum.
    frames = nodes.add("Gather", nodes.add("Cast", padded, to=_DOUBLE), places, axis=1)
    spectrum = nodes.add("MatMul", frames, waves)
    real, imaginary = nodes.add("Split", spectrum, np.array([waves.shape[1] // 2] * 2), outputs=2, axis=-1)
    power = nodes.add("Add", nodes.add("Mul", real, real), nodes.add("Mul", imaginary, imaginary))
    bands = nodes.add("MatMul", power, mel_bands(sound.sample_rate, sound.window, sound.mels).T.astype(np.float64))
    decibels = nodes.add("Mul", nodes.add("Log", nodes.add("Add", bands, FLOOR)), float(10.0 / np.log(10.0)))
    image = nodes.add("Unsqueeze", nodes.add("Transpose", decibels, perm=[0, 2, 1]), np.array([1]))
    return _standardised(nodes, str(nodes.add("Cast", image, to=_FLOAT)), how)


def _of_column(column: Mapping[str, Any]) -> tuple[int, Sequence[int | str]]:
    if column["type"] == "text":
        return _FLOAT, ["batch", len(column["components"]) + bool(column["missing"])]
    return (_DOUBLE if column["type"] == "numeric" else _STRING), ["batch", 1]


def _table(nodes: Nodes, how: Mapping[str, Any], trained: TrainedModel) -> str:
    """One input for each column -> features: numbers filled, marked and standardised, texts by level."""
    used = [column for column in how["columns"] if column["type"] != "dropped"]
    made = {"numeric": _number, "categorical": _levels}  # of free text no operator makes features
    blocks = [made[column["type"]](nodes, column) if column["type"] in made else column["name"] for column in used]
    return str(nodes.add("Concat", *blocks, axis=1))


def _number(nodes: Nodes, column: Mapping[str, Any]) -> str:
    given = column["name"]
    missing = nodes.add("Not", nodes.add("Less", nodes.add("Abs", given), LARGEST))  # NaN is less than nothing
    filled = nodes.add("Where", missing, float(column["fill"]), given)
    standard = nodes.add("Div", nodes.add("Sub", filled, float(column["mean"])), float(column["std"]))
    made = [nodes.add("Cast", standard, to=_FLOAT)]
    made += [nodes.add("Cast", missing, to=_FLOAT)] if column["missing"] else []
    if column.get("calendar"):
        made.append(nodes.add("Cast", nodes.add("Where", missing, 0.0, _calendar(nodes, column, filled)), to=_FLOAT))
    return str(nodes.add("Concat", *made, axis=1) if len(made) > 1 else made[0])


def _calendar(nodes: Nodes, column: Mapping[str, Any], seconds: str) -> str:
    """Seconds since 1970 become the parts of the calendar that training saw vary, as ``table_encodings.calendar_features`` makes them.

    ``seconds`` must be finite: they become indices, and an integer of NaN is none.

    Source: Hinnant 2013, "chrono-compatible low-level date algorithms", civil_from_days.
    """

    def op(kind: str, *given: Any) -> str:
        return str(nodes.add(kind, *given))

    def whole(value: str, size: float) -> str:
        return op("Floor", op("Div", value, size))

    seconds = op("Floor", op("Clip", seconds, -6.2e10, 2.5e11))
    days = whole(seconds, 86_400.0)
    shifted = op("Add", days, 719_468.0)
    era = whole(shifted, 146_097.0)
    inside = op("Sub", shifted, op("Mul", era, 146_097.0))
    leaps = op("Sub", op("Sub", whole(inside, 36_524.0), whole(inside, 1_460.0)), whole(inside, 146_096.0))
    of_era = whole(op("Add", inside, leaps), 365.0)
    before = op("Sub", op("Add", op("Mul", of_era, 365.0), whole(of_era, 4.0)), whole(of_era, 100.0))
    march = whole(op("Add", op("Mul", op("Sub", inside, before), 5.0), 2.0), 153.0)
    late = op("GreaterOrEqual", march, 10.0)  # January and February end the year that began in March
    parts = {
        "year": op("Add", op("Add", of_era, op("Mul", era, 400.0)), op("Where", late, 1.0, 0.0)),
        "month": op("Where", late, op("Sub", march, 10.0), op("Add", march, 2.0)),
        "weekday": op("Sub", op("Add", days, 3.0), op("Mul", whole(op("Add", days, 3.0), 7.0), 7.0)),
        "hour": op("Div", op("Sub", seconds, op("Mul", days, 86_400.0)), 3_600.0),
    }
    made = []
    for part in column["calendar"]:
        if part == "year":
            low, high = column["years"]
            made.append(op("Div", op("Sub", parts[part], float(low)), max(1.0, high - low)))
        else:
            step = op("Floor", op("Add", op("Mul", parts[part], float(CIRCLE[part][1])), 1e-6))
            found = nodes.add("Gather", circle(part), nodes.add("Cast", step, to=_INT64), axis=0)  # (batch, 1, 2)
            made.append(str(nodes.add("Reshape", found, np.array([-1, 2]))))
    return str(nodes.add("Concat", *made, axis=1) if len(made) > 1 else made[0])


def _levels(nodes: Nodes, column: Mapping[str, Any]) -> str:
    """A text becomes a feature for its level, one for all others and one for missing, where training saw such."""
    other = len(column["levels"]) if column["other"] else -1
    count = len(column["levels"]) + bool(column["other"]) + bool(column["missing"])
    absent = count - 1 if column["missing"] else other
    places = {word: absent for text in sorted(MISSING) for word in (text, text.upper(), text.title())}
    codes, own = codes_as_numbers(column), {level: k for k, level in enumerate(column["levels"])}
    places |= {number: own[level] for number, level in codes.items() if level in own} | own
    numbers = nodes.add(
        "LabelEncoder",
        column["name"],
        domain="ai.onnx.ml",
        keys_strings=list(places),
        values_int64s=list(places.values()),
        default_int64=other,
    )
    blocks = [nodes.add("Cast", nodes.add("Equal", numbers, np.arange(count)[None]), to=_FLOAT)] if count else []
    target = column.get("target", {"prior": (), "means": {}})
    means = {number: target["means"][level] for number, level in codes.items() if level in target["means"]} | target["means"]
    for k, prior in enumerate(target["prior"]):
        by_text: dict[str, Any] = {"keys_strings": list(means), "values_floats": [one[k] for one in means.values()]}
        blocks.append(nodes.add("LabelEncoder", column["name"], domain="ai.onnx.ml", **by_text, default_float=float(prior)))
    blocks += [f"{column['name']} words"] if "words" in column else []
    return str(nodes.add("Concat", *blocks, axis=1) if len(blocks) > 1 else blocks[0])


def _answers(nodes: Nodes, given: Sequence[Any], trained: TrainedModel) -> tuple[str, int]:
    """Return what the raw outputs mean, and the number of probabilities of an example; below zero for scores, 0 for values."""
    task, outputs = trained.task, [output.name for output in given]
    if task.kind == "regression":
        values = nodes.add("Cast", nodes.add("Reshape", outputs[0], np.array([-1])), to=_DOUBLE)
        mean, deviation = task.target_scale or (0.0, 1.0)
        return nodes.add("Add", nodes.add("Mul", values, float(deviation)), float(mean)), 0
    if trained.is_torch:
        return nodes.add("Sigmoid", outputs[0]) if task.kind == "multilabel" else nodes.add("Softmax", outputs[0], axis=1), task.outputs
    estimator, last = plain_estimator(trained.model), outputs[-1]
    if is_outlier_detector(estimator):
        decision = nodes.add("Reshape", nodes.add("Cast", last, to=_FLOAT), np.array([-1, 1]))
        normal = nodes.add("Add", nodes.add("Mul", nodes.add("Softsign", decision), np.float32(0.5)), np.float32(0.5))
        return nodes.add("Concat", normal, _rest(nodes, normal), axis=1), -2  # as in ``plain_scores``
    known = getattr(estimator, "classes_", None)
    if known is None:
        raise ValueError("an estimator without classes_ has no graph that names classes")
    if isinstance(known, list):  # several labels: a pair of probabilities each, in one tensor or in a sequence of them
        pick = "SequenceAt" if given[-1].type.WhichOneof("value") == "sequence_type" else "Gather"
        columns = [[list(of).index(1)] if 1 in of else [0] for of in known]
        ones = [nodes.add("Gather", nodes.add(pick, last, k), np.array(column), axis=1) for k, column in enumerate(columns)]
        there = np.array([[1 in of for of in known]], np.float32)  # a label that never occurred has no probability
        return nodes.add("Mul", nodes.add("Cast", nodes.add("Concat", *ones, axis=1), to=_FLOAT), there), task.outputs
    if callable(getattr(estimator, "predict_proba", None)):
        found = nodes.add("Cast", last, to=_FLOAT)
    elif callable(getattr(estimator, "decision_function", None)):
        if len(known) == 2:
            positive = nodes.add("Sigmoid", nodes.add("Reshape", nodes.add("Cast", last, to=_FLOAT), np.array([-1, 1])))
            found = nodes.add("Concat", _rest(nodes, positive), positive, axis=1)
        else:
            found = nodes.add("Softmax", nodes.add("Cast", last, to=_FLOAT), axis=1)
    else:
        labels = nodes.add("Reshape", nodes.add("Cast", outputs[0], to=_INT64), np.array([-1, 1]))
        found = nodes.add("Cast", nodes.add("Equal", labels, np.asarray(known, dtype=np.int64)[None]), to=_FLOAT)
    if len(known) != task.outputs and task.kind in ("classification", "anomaly"):
        spread = np.zeros((len(known), task.outputs), np.float32)
        spread[np.arange(len(known)), np.asarray(known, dtype=int)] = 1.0
        found = nodes.add("MatMul", found, spread)
    return found, task.outputs


def _rest(nodes: Nodes, share: str) -> str:
    return str(nodes.add("Sub", np.float32(1), share))
