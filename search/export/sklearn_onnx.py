"""scikit-learn to ONNX by skl2onnx, with three of its gaps closed."""

from __future__ import annotations

from typing import Any

#: Operator sets that every ONNX Runtime since 1.15 knows and skl2onnx has converters for.
OPSETS = {"": 18, "ai.onnx.ml": 3}


def convert(estimator: Any, features: int) -> Any:
    """Return the ONNX graph of an estimator with one input ``inputs`` ``(batch, features)``, free in the batch.

    Classifiers give plain probability columns in place of a list of dictionaries. Histogram gradient boosting keeps its tree nodes as
    numpy scalars, which newer versions of onnx refuse as attributes, so they are handed over as Python numbers. Neighbours have a converter
    of our own, see ``neighbours_onnx``.

    Raises:
        RuntimeError: If skl2onnx has no converter for a part of the estimator; its first line names the part.
    """
    from skl2onnx import convert_sklearn
    from skl2onnx.common._registration import get_converter
    from skl2onnx.common.data_types import FloatTensorType
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes, calculate_linear_regressor_output_shapes
    from sklearn.base import is_classifier
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    from .neighbours_onnx import convert_neighbours

    def plain(converter: Any) -> Any:
        return lambda scope, operator, container: converter(scope, operator, PlainNumbers(container))

    trees = {HistGradientBoostingClassifier: "Classifier", HistGradientBoostingRegressor: "Regressor"}
    converters: dict[Any, Any] = {family: plain(get_converter(f"SklearnHistGradientBoosting{kind}")) for family, kind in trees.items()}
    converters |= {KNeighborsClassifier: convert_neighbours, KNeighborsRegressor: convert_neighbours}
    shapes = {
        KNeighborsClassifier: calculate_linear_classifier_output_shapes,
        KNeighborsRegressor: calculate_linear_regressor_output_shapes,
        HistGradientBoostingClassifier: calculate_linear_classifier_output_shapes,
        HistGradientBoostingRegressor: calculate_linear_regressor_output_shapes,
    }
    return convert_sklearn(
        estimator,
        name="joulefront",
        initial_types=[("inputs", FloatTensorType([None, features]))],
        options={id(estimator): {"zipmap": False}} if is_classifier(estimator) else None,
        target_opset=OPSETS,
        custom_conversion_functions=converters,
        custom_shape_calculators=shapes,
    )


class PlainNumbers:
    """A container of skl2onnx whose nodes get Python numbers as attributes; everything else passes through."""

    def __init__(self, container: Any) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def add_node(self, *args: Any, **attributes: Any) -> Any:
        """Add a node whose list attributes are freed of numpy scalars."""
        return self._container.add_node(*args, **{name: _plain(value) for name, value in attributes.items()})


def _plain(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    numbers = [item.item() if hasattr(item, "item") else item for item in value]
    return [int(number) if isinstance(number, bool) else number for number in numbers]
