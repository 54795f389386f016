"""pt2: the graph and the weights of ``torch.export``, loadable without the code of the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .quiet import quiet
from .subject import ExportFailed, Predictor, Subject, torch_predictor
from .to_onnx import cause

if TYPE_CHECKING:
    from .subject import Exporter

FILE = "model.pt2"


class Pt2:
    """PyTorch models as an exported program."""

    name = "pt2"

    def write(self, subject: Subject, folder: Path) -> str:
        """Write ``model.pt2`` with a free batch axis."""
        if not subject.is_torch:
            raise ExportFailed(
                f"trial {subject.trial.number} is a scikit-learn model ({subject.type_name}) and --to pt2 takes PyTorch models; "
                "use --to skops or --to onnx"
            )
        import torch

        with quiet() as heard:
            try:
                program = torch.export.export(
                    subject.model,
                    (torch.zeros(2, *subject.input_shape),),  # two: a batch of one would be taken for a constant
                    dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                    strict=False,
                )
                torch.export.save(program, folder / FILE)
            except Exception as error:
                raise ExportFailed(
                    f"trial {subject.trial.number} ({subject.type_name}) cannot be traced by torch.export: {cause(error)}; "
                    "use --to safetensors",
                    f"{heard.getvalue()}\n{error}",
                ) from error
        return FILE

    def load(self, subject: Subject, folder: Path) -> Predictor:
        """Load the program from the disk."""
        import torch

        with quiet():
            return torch_predictor(torch.export.load(folder / FILE).module())

    def snippet(self, subject: Subject, folder: Path) -> str:
        """Predict with plain PyTorch."""
        return (
            "import torch\n\n"
            f'model = torch.export.load("{FILE}").module()\n'
            "with torch.no_grad():\n"
            f"    {subject.output_name} = model(torch.from_numpy(inputs)).numpy()\n"
        )


if TYPE_CHECKING:
    _: Exporter = Pt2()
