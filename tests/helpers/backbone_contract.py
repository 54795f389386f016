"""What every frozen network behind the seam ``Backbone`` has to keep."""

import json

import torch

from joulefront.search.training.backbone import Backbone, Transfer


def check_backbone(backbone: Backbone, inputs: torch.Tensor, outputs: int = 3) -> None:
    """Check a backbone on a few inputs ``(b, ...)`` as a task hands them out, which must differ."""
    assert isinstance(backbone, torch.nn.Module)
    assert isinstance(backbone.identity, str)
    assert any(sign.isdigit() for sign in backbone.identity)  # a hash of the weights
    json.dumps(dict(backbone.preprocessing), allow_nan=False)
    names = backbone.feature_sets()
    assert names
    assert len(set(names)) == len(names)
    backbone.eval()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    for name in names:
        with torch.inference_mode():
            prepared = backbone.prepare(inputs)
            assert len(prepared) == len(inputs)
            features = backbone.embed(prepared, name)
            again = backbone.embed(backbone.prepare(inputs), name)
            alone = torch.cat([backbone.embed(backbone.prepare(one), name) for one in inputs.split(1)])
        assert features.ndim == 2
        assert len(features) == len(inputs)
        assert features.is_floating_point()
        assert torch.isfinite(features).all()
        assert features.std(dim=0).max() > 0  # it sees its inputs
        assert torch.equal(features, again)
        assert torch.allclose(features, alone, rtol=1e-3, atol=1e-3 * float(features.abs().max()))  # a row depends on its own input
        model = Transfer(backbone, name, torch.nn.Linear(features.shape[1], outputs)).train()
        found = model(inputs)
        assert found.shape == (len(inputs), outputs)
        found.sum().backward()
        assert [weight for weight, value in model.named_parameters() if value.grad is not None] == ["head.weight", "head.bias"]
        assert not backbone.training
    after = backbone.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
