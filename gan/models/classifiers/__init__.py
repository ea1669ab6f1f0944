"""Image classifiers of the SRN paper (Sanyal et al. 2020, 5.1 and appendix D).

They map images float32 (N, C, H, W) in [-1, 1], 32x32 in the paper, to logits float32 (N, num_classes), and are
independent of weight normalization.
"""

from collections.abc import Callable

from torch import nn

from gan.models.classifiers.alexnet import AlexNet
from gan.models.classifiers.densenet import DenseNet
from gan.models.classifiers.resnet import ResNet
from gan.models.classifiers.vgg import VGG
from gan.models.classifiers.wide_resnet import WideResNet

CLASSIFIERS: dict[str, Callable[..., nn.Module]] = {
    "resnet": ResNet,
    "wide_resnet": WideResNet,
    "densenet": DenseNet,
    "vgg": VGG,
    "alexnet": AlexNet,
}

__all__ = ["CLASSIFIERS", "VGG", "AlexNet", "DenseNet", "ResNet", "WideResNet"]
