"""IIRLoss in a LightningModule.

    python examples/lightning_module.py                       # generated images
    python examples/lightning_module.py --data pets --backbone resnet50 --pretrained --image-size 224 --output-stride 16

Lines that end with "# IIR" add the loss; where they replace what was there, that stands above them. The two that end
with "# box" draw what the network has learned. Without all of them this is a plain classifier.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import timm
import torch
import torch.nn.functional as F
from boxes import save_box  # box
from generated_images import write_images
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from iir_fast import DualCAMHead, IIRLoss, SubgroupSampler  # IIR


class Classifier(lightning.LightningModule):
    """A backbone and a head.

    Args:
        backbone: a timm model that makes feature maps [B,C,H,W].
        classes: number of classes.
        learning_rate: the highest one of the schedule.
        steps: of the whole training.
    """

    def __init__(self, backbone: Any, classes: int, learning_rate: float, steps: int) -> None:
        super().__init__()
        channels = backbone.num_features
        # was: head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
        head = DualCAMHead(channels, classes, hidden=None)  # IIR
        self.iir = IIRLoss(gather=True)  # IIR
        self.model = nn.Sequential(backbone, head)
        self.learning_rate = learning_rate
        self.steps = steps

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        images, labels = batch
        backbone, head = self.model
        features = backbone(images)
        # was: logits = head(features)
        out = head(features, labels)  # IIR
        # was: loss = F.cross_entropy(logits, labels)
        loss = F.cross_entropy(out.logits_a, labels) + F.cross_entropy(out.logits_b, labels)  # IIR
        loss += self.iir.weight_of(out) * self.iir(out)  # IIR
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        images, labels = batch
        # was: predicted = self.model(images).argmax(dim=1)
        predicted = self.model(images).labels  # IIR
        self.log("accuracy", predicted.eq(labels).float().mean(), prog_bar=True, batch_size=len(labels))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), self.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train/CLASS/IMAGE and val/CLASS/IMAGE")
    parser.add_argument("--out", type=Path, default=Path("runs/lightning_module"), help="folder for what is written")
    parser.add_argument("--backbone", default="resnet10t", help="a timm model that takes output_stride")
    parser.add_argument("--pretrained", action="store_true", help="start from timm's ImageNet weights")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--output-stride", type=int, default=8, help="pixels per cell of the feature map")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32, help="a multiple of 4")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--bf16", action="store_true", help="train under autocast")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    lightning.seed_everything(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    root = args.data or write_images(args.out / "images")

    train, val = ImageFolder(root / "train"), ImageFolder(root / "val")
    backbone = timm.create_model(
        args.backbone, args.pretrained, num_classes=0, global_pool="", output_stride=args.output_stride
    )
    config = timm.data.resolve_model_data_config(backbone)
    resize = v2.Resize((args.image_size, args.image_size))
    tensor = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(config["mean"], config["std"])]
    train.transform = v2.Compose([resize, v2.RandomHorizontalFlip(), *tensor])
    val.transform = v2.Compose([resize, *tensor])
    # was: loader = DataLoader(train, args.batch_size, shuffle=True, drop_last=True)
    sampler = SubgroupSampler(train.targets, args.batch_size // 4, 4, args.seed)  # IIR
    loader = DataLoader(train, batch_sampler=sampler)  # IIR

    classifier = Classifier(backbone, len(train.classes), args.learning_rate, args.epochs * len(loader))
    trainer = lightning.Trainer(
        accelerator=args.device,
        devices=1,
        precision="bf16-mixed" if args.bf16 else "32-true",
        max_epochs=args.epochs,
        default_root_dir=args.out,
        logger=False,
        enable_checkpointing=False,
    )
    trainer.fit(classifier, loader, DataLoader(val, args.batch_size))
    print(f"loss: {trainer.callback_metrics['loss'].item():.4f}")
    print(f"accuracy: {trainer.callback_metrics['accuracy'].item():.4f}")
    model = classifier.model.eval()
    torch.save(model.state_dict(), args.out / "weights.pt")
    print("box:", *save_box(model, val.transform, val.samples[0][0], args.out / "box.png"))  # box


if __name__ == "__main__":
    main()
