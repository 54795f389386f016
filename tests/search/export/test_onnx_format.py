"""What is handed to PyTorch's exporters, so that each version that is promised takes it."""

import sys

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from joulefront.search.export.onnx_format import batch_norm_in_steps, free_batch, quiet


@pytest.mark.slow
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.BatchNorm2d])
def test_a_batch_norm_in_steps_computes_the_same_without_the_operator(norm, affine):
    model, shape = norm(3, affine=affine).eval(), (3,) if norm is nn.BatchNorm1d else (3, 4, 4)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 2.0)
    with quiet():
        program = torch.onnx.export(
            model,
            (torch.zeros(2, *shape),),
            dynamo=True,
            dynamic_shapes=free_batch(),
            input_names=["inputs"],
            custom_translation_table=batch_norm_in_steps(),
        )
    assert "BatchNormalization" not in {node.op_type for node in program.model_proto.graph.node}
    inputs = torch.randn(5, *shape)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.allclose(session.run(None, {"inputs": inputs.numpy()})[0], model(inputs).detach(), atol=1e-5)


def test_the_free_side_of_a_batch_has_an_end():
    (sides,) = free_batch()
    assert sides[0].min == 1
    assert 2**16 < sides[0].max < sys.maxsize
