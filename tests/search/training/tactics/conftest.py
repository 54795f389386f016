import pytest


@pytest.fixture(autouse=True)
def _one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits_task():
    """60 / 20 / 20 split of scikit-learn's 1,797 real digits of 8 x 8 pixels."""
    return digits(1797)


@pytest.fixture(scope="session")
def few_digits():
    """The first 300 of them: for what is exact, however well the model is trained."""
    return digits(300)


def digits(count):
    from sklearn.datasets import load_digits

    from joulefront.search.training.arrays import arrays

    found = load_digits()
    images = (found.images[:count, None] / 16.0).astype("float32")
    return arrays(images, found.target[:count], name="digits", validation_share=0.2, test_share=0.2, seed=0)


@pytest.fixture
def wide_net():
    """Two convolutions of 64 channels and a head, with weights from a seed."""
    import torch
    from torch import nn

    def build(seed=0, width=64):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, 10),
        )

    return build
