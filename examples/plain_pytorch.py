"""IIRLoss in an ordinary PyTorch training loop.

    python examples/plain_pytorch.py                          # generated images
    python examples/plain_pytorch.py --data pets --backbone resnet50 --pretrained --image-size 224 --output-stride 16
    torchrun --nproc-per-node 2 examples/plain_pytorch.py     # images of a class are compared across ranks

Lines that end with "# IIR" add the loss; where they replace what was there, that stands above them. The two that end
with "# box" draw what the network has learned. Without all of them this is a plain classifier.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import timm
import torch
import torch.distributed as dist
import torch.nn.functional as F
from boxes import save_box  # box
from generated_images import write_images
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from iir_fast import DualCAMHead, IIRLoss, SubgroupSampler  # IIR


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train/CLASS/IMAGE and val/CLASS/IMAGE")
    parser.add_argument("--out", type=Path, default=Path("runs/plain_pytorch"), help="folder for what is written")
    parser.add_argument("--backbone", default="resnet10t", help="a timm model that takes output_stride")
    parser.add_argument("--pretrained", action="store_true", help="start from timm's ImageNet weights")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--output-stride", type=int, default=8, help="pixels per cell of the feature map")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32, help="of one process; a multiple of 4")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--bf16", action="store_true", help="train under autocast")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def start_ranks(device: str) -> tuple[int, int]:
    """This process's rank and the number of ranks: as torchrun says, else one alone."""
    if not dist.is_torchelastic_launched():
        return 0, 1
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    return dist.get_rank(), dist.get_world_size()


def main() -> None:
    args = parse_arguments()
    rank, ranks = start_ranks(args.device)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    root = args.data or args.out / "images"
    if args.data is None and rank == 0:
        write_images(root)
    if ranks > 1:
        dist.barrier()

    train, val = ImageFolder(root / "train"), ImageFolder(root / "val")
    backbone = timm.create_model(
        args.backbone, args.pretrained, num_classes=0, global_pool="", output_stride=args.output_stride
    )
    channels, classes = backbone.num_features, len(train.classes)
    # was: head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
    head = DualCAMHead(channels, classes, hidden=None)  # IIR
    iir = IIRLoss(gather=True)  # IIR
    model = nn.Sequential(backbone, head).to(args.device)
    if ranks > 1:
        backbone, head = DistributedDataParallel(backbone), DistributedDataParallel(head)
    optimizer = torch.optim.AdamW(model.parameters(), args.learning_rate)

    config = timm.data.resolve_model_data_config(model[0])
    resize = v2.Resize((args.image_size, args.image_size))
    tensor = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(config["mean"], config["std"])]
    train.transform = v2.Compose([resize, v2.RandomHorizontalFlip(), *tensor])
    val.transform = v2.Compose([resize, *tensor])
    steps = len(train) // (args.batch_size * ranks)  # of an epoch
    end = args.epochs * steps
    # was: sampler = torch.utils.data.DistributedSampler(train, ranks, rank, seed=args.seed, drop_last=True)
    sampler = SubgroupSampler(train.targets, args.batch_size // 4, 4 * ranks, args.seed, steps, rank, ranks)  # IIR
    # was: loader = DataLoader(train, args.batch_size, sampler=sampler, drop_last=True)
    loader = DataLoader(train, batch_sampler=sampler)  # IIR

    model.train()
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        for step, (images, labels) in enumerate(loader, epoch * steps):
            images, labels = images.to(args.device), labels.to(args.device)
            with torch.autocast(args.device, torch.bfloat16, enabled=args.bf16):
                features = backbone(images)
                # was: logits = head(features)
                out = head(features, labels)  # IIR
                # was: loss = F.cross_entropy(logits, labels)
                loss = F.cross_entropy(out.logits_a, labels) + F.cross_entropy(out.logits_b, labels)  # IIR
                loss += iir.weight_of(out) * iir(out)  # IIR
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 10 == 0 and rank == 0:
                print(f"step {step} of {end}: loss {loss.item():.4f}")

    if rank == 0:
        model.eval()
        right = 0
        with torch.no_grad():
            for images, labels in DataLoader(val, args.batch_size):
                # was: predicted = model(images.to(args.device)).argmax(dim=1)
                predicted = model(images.to(args.device)).labels  # IIR
                right += int((predicted.cpu() == labels).sum())
        print(f"accuracy: {right / len(val):.4f}")
        torch.save(model.state_dict(), args.out / "weights.pt")
        print("box:", *save_box(model, val.transform, val.samples[0][0], args.out / "box.png"))  # box
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
