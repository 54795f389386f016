import pytest
import torch

from joulefront.spaces.vit import Block, Patches, Transformer


def test_every_pixel_belongs_to_a_token_also_where_the_patches_do_not_divide_the_image():
    for height, width, patch in [(8, 8, 4), (9, 8, 4), (7, 5, 3), (1, 1, 4), (3, 8, 4)]:
        x = torch.randn(1, 2, height, width, requires_grad=True)
        tokens = Patches((2, height, width), patch, 6)
        out = tokens(x)
        assert out.shape == (1, tokens.count, 6)
        out.square().sum().backward()
        assert (x.grad != 0).all()


def test_attention_is_the_softmax_of_the_products():
    torch.manual_seed(0)
    block, x = Block(8, 2, 1).eval(), torch.randn(3, 5, 8)
    q, k, v = block.qkv(block.norm1(x)).chunk(3, dim=-1)
    heads = []
    for h in (slice(0, 4), slice(4, 8)):
        weights = torch.softmax(q[..., h] @ k[..., h].transpose(1, 2) / 4**0.5, dim=-1)
        heads.append(weights @ v[..., h])
    y = x + block.out(torch.cat(heads, dim=-1))
    assert torch.allclose(block(x), y + block.perceptron(block.norm2(y)), atol=1e-5)


def test_stochastic_depth_leaves_whole_examples_out_and_keeps_the_mean():
    torch.manual_seed(0)
    block, x = Block(8, 2, 1, drop_path=0.25), torch.randn(1, 5, 8).expand(4000, -1, -1)
    untouched = (block.train()(x) == x).flatten(1).all(dim=1).float().mean()  # both branches out
    assert untouched == pytest.approx(0.25**2, abs=0.02)
    torch.nn.init.zeros_(block.perceptron[-1].weight)  # from here on the attention is the only branch
    torch.nn.init.zeros_(block.perceptron[-1].bias)
    branch, kept = block.eval()(x) - x, block.train()(x) - x
    alive = kept.flatten(1).any(dim=1)
    assert torch.allclose(kept[alive], branch[alive] / 0.75, atol=1e-5)
    assert alive.float().mean() == pytest.approx(0.75, abs=0.03)


def test_the_position_of_a_patch_counts():
    torch.manual_seed(0)
    model = Transformer((1, 8, 8), 3, patch=4, depth=2, heads=2, head_width=8, ratio=2).eval()
    x = torch.randn(1, 1, 8, 8)
    assert not torch.allclose(model(x), model(x.flip(3)), atol=1e-4)
