"""IIRLoss in a loop made of timm's training utilities.

    python examples/timm_training.py                          # generated images
    python examples/timm_training.py --data pets --backbone resnet50 --pretrained --image-size 224 --output-stride 16

Lines that end with "# IIR" add the loss; where they replace what was there, that stands above them. The two that end
with "# box" draw what the network has learned. Without all of them this is a plain classifier.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import timm
import torch
from boxes import save_box  # box
from generated_images import write_images
from timm.data import create_dataset, create_transform, resolve_model_data_config
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, ModelEmaV3, NativeScaler, accuracy, random_seed
from torch import nn
from torch.utils.data import DataLoader

from iir_fast import DualCAMHead, IIRLoss, SubgroupSampler  # IIR


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train/CLASS/IMAGE and val/CLASS/IMAGE")
    parser.add_argument("--out", type=Path, default=Path("runs/timm_training"), help="folder for what is written")
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
    random_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    root = args.data or write_images(args.out / "images")

    train = create_dataset("", root=str(root), split="train")
    val = create_dataset("", root=str(root), split="val")
    targets = [label for _, label in train.reader.samples]
    backbone = timm.create_model(
        args.backbone, args.pretrained, num_classes=0, global_pool="", output_stride=args.output_stride
    )
    channels, classes = backbone.num_features, len(set(targets))
    # was: head = timm.layers.ClassifierHead(channels, classes)
    head = DualCAMHead(channels, classes, hidden=None)  # IIR
    iir = IIRLoss()  # IIR
    model = nn.Sequential(backbone, head).to(args.device)
    ema = ModelEmaV3(model, decay=0.99, use_warmup=True)

    config = resolve_model_data_config(backbone)
    look = {key: config[key] for key in ("interpolation", "mean", "std")}
    train.transform = create_transform(args.image_size, is_training=True, scale=(0.5, 1.0), **look)
    val.transform = create_transform(args.image_size, crop_pct=1.0, **look)
    # was: loader = DataLoader(train, args.batch_size, shuffle=True, drop_last=True)
    loader = DataLoader(train, batch_sampler=SubgroupSampler(targets, args.batch_size // 4, 4, args.seed))  # IIR

    optimizer = create_optimizer_v2(model, "adamw", args.learning_rate, weight_decay=0.05)
    schedule, _ = create_scheduler_v2(
        optimizer, num_epochs=args.epochs, step_on_epochs=False, updates_per_epoch=len(loader)
    )
    scaler = NativeScaler(args.device)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(args.epochs):
        loader.batch_sampler.set_epoch(epoch)  # IIR
        model.train()
        losses = AverageMeter()
        for step, (images, labels) in enumerate(loader, epoch * len(loader)):
            images, labels = images.to(args.device), labels.to(args.device)
            with torch.autocast(args.device, torch.bfloat16, enabled=args.bf16):
                features = backbone(images)
                # was: logits = head(features)
                out = head(features, labels)  # IIR
                # was: loss = criterion(logits, labels)
                loss = criterion(out.logits_a, labels) + criterion(out.logits_b, labels)  # IIR
                loss += iir.weight_of(out) * iir(out)  # IIR
            optimizer.zero_grad()
            scaler(loss, optimizer, clip_grad=1.0, parameters=model.parameters())
            ema.update(model, step)
            schedule.step_update(step + 1)
            losses.update(loss.item(), len(labels))

        top1 = AverageMeter()
        with torch.no_grad():
            for images, labels in DataLoader(val, args.batch_size):
                # was: logits = ema(images.to(args.device))
                logits = sum(ema(images.to(args.device))[:2])  # IIR
                top1.update(accuracy(logits.cpu(), labels)[0].item(), len(labels))
        print(f"epoch {epoch}: loss {losses.avg:.4f}")
        print(f"accuracy: {top1.avg / 100:.4f}")
    torch.save(ema.module.state_dict(), args.out / "weights.pt")
    print("box:", *save_box(ema.module, val.transform, val.filename(0, absolute=True), args.out / "box.png"))  # box


if __name__ == "__main__":
    main()
