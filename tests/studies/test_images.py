import pytest

from joulefront.spaces.timm_zoo import TimmZoo
from joulefront.studies.images import study

pytestmark = pytest.mark.slow


def zoo_of(**options: str) -> TimmZoo:
    space = study("anywhere", **options).space
    return next(member for member in space.spaces if isinstance(member, TimmZoo))


def test_models_and_weights_are_the_users_choice() -> None:
    assert zoo_of(models="resnet18, convnext_*").models == ("resnet18", "convnext_*")
    assert zoo_of(models="resnet18", weights="resnet18.safetensors").weights == ("none", "resnet18.safetensors")
    assert zoo_of().weights == "none"


def test_a_weights_file_needs_the_one_model_that_it_belongs_to() -> None:
    with pytest.raises(ValueError, match="--set models=NAME"):
        study("anywhere", weights="resnet18.safetensors")
    with pytest.raises(ValueError, match="--set models=NAME"):
        study("anywhere", weights="resnet18.safetensors", models="resnet18,resnet34")
