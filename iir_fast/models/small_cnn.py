"""The small convolutional network of the demo, sized for 64x64 images on two CPU cores."""

from __future__ import annotations

import torch
from torch import nn

SMALL_CNN = "small_cnn"
"""Its name among the backbones."""
WIDTHS = (16, 32, 64, 64)
# Striding in the first two layers leaves all the wide layers on the 16x16 map, where they are cheapest.
STRIDES = (2, 2, 1, 1)


class SmallCNN(nn.Sequential):
    """Four 3x3 convolutions, each with batch norm and ReLU, at stride 4.

    Images [B, 3, H, W] become features [B, 64, ceil(H / 4), ceil(W / 4)], a 16x16 map for 64x64 images. About 16
    million multiply-adds per 64x64 image. Weights are drawn from torch's default generator (`torch.manual_seed`).
    """

    channels = WIDTHS[-1]
    stride = 4

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs, stride in zip((3, *WIDTHS), WIDTHS, STRIDES, strict=False):
            convolution = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        super().__init__(*layers)
        # A quarter faster on a CPU; the weights' layout is enough, the activations follow it.
        self.to(memory_format=torch.channels_last)
