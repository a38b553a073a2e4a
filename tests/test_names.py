"""Names of feature sets: each is taken apart, and a wrong one is told with its neighbours."""

from __future__ import annotations

import pytest

from pci_core.errors import UnknownNameError
from pci_core.names import VGG16, FeatureName, feature_names, parse_feature_name, split_names


def test_every_name_can_be_taken_apart() -> None:
    names = feature_names()
    assert len(names) == len(set(names)) == 5 + 10 + 6 + 3 * 14
    assert {parse_feature_name(n).family for n in names} == {
        "pci", "untrained", "autoencoder", "classic", "cellprofiler", "designed", "supervised", "pixels", "provided", "vgg16"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv4", FeatureName("pci", "conv4", "max")),
        ("autoencoder_conv3_mean", FeatureName("autoencoder", "conv3", "mean")),
        ("untrained_conv1", FeatureName("untrained", "conv1", "max")),
        ("vgg16_block4_conv1_rgb", FeatureName("vgg16", "block4_conv1_rgb", "max")),
        ("classic", FeatureName("classic")),
    ],
)
def test_parts(name: str, expected: FeatureName) -> None:
    assert parse_feature_name(name) == expected
    assert parse_feature_name(name).is_network == (expected.family in ("pci", "autoencoder", "untrained"))


def test_vgg16_has_the_layers_of_the_architecture() -> None:
    # Simonyan and Zisserman 2015, configuration D: 2, 2, 3, 3, 3 convolutions
    blocks = [n.removeprefix("vgg16_").removesuffix("_protein") for n in VGG16 if n.endswith("_protein")]
    assert [sum(b.startswith(f"block{i}") for b in blocks) for i in range(1, 6)] == [2, 2, 3, 3, 3]
    assert blocks[-1] == "fc1"


@pytest.mark.parametrize("name", ["conv6", "vgg16_block1_conv3_protein", "autoencoder", "conv4_median", ""])
def test_unknown(name: str) -> None:
    with pytest.raises(UnknownNameError, match="feature set"):
        parse_feature_name(name)


def test_names_in_one_text() -> None:
    assert split_names("conv3, conv4,,conv3") == split_names(["conv3", "conv4"]) == ["conv3", "conv4"]
    assert split_names("") == []
