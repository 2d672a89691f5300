"""What is driven: every reader in this process, every command in one of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torchvision.transforms.v2.functional import pil_to_tensor

from iir_fast.app.commands.plan import plan_defaults
from iir_fast.app.commands.train import train_defaults
from iir_fast.app.details import read_images
from iir_fast.app.runs import load
from iir_fast.comparison import read_comparison, tables
from iir_fast.comparison.results import read_result, to_json
from iir_fast.data import check_data, find_images, open_split
from iir_fast.data.images import read_header, read_image, read_mask, read_trimap
from iir_fast.evaluation import StoredMaps, evaluate_scoremaps
from iir_fast.evaluation.evaluator import Evaluator
from iir_fast.evaluation.ranked_classes import read_ranked_classes
from iir_fast.models import create_backbone, load_network
from iir_fast.training import TrainConfig
from iir_fast.training.features import cached_features
from tests.fuzz.mutate import TEXTS, odd

Run = Callable[[Path, Sequence[Path], Random], "list[str] | None"]
IDS = ("test/0.png", "test/1.png", "test/2.png")
SMALL = ("--image-size", "32", "--hidden", "4", "--epochs", "1", "--max-steps", "1", "--device", "cpu")


@dataclass(frozen=True)
class Target:
    """Attributes:
    breaks: files below the samples, for `Path.glob`, of which one or two are broken.
    run: from the samples' folder, the broken files and a source of chance to nothing, or to a command line.
    writes: folders of samples that may be written to; others than `out` may not.
    """

    breaks: tuple[str, ...]
    run: Run
    writes: tuple[str, ...] = ()


def _source(source: str) -> Run:
    def run(root: Path, broken: Sequence[Path], random: Random) -> None:
        name = source.format(root)
        if random.random() < 0.5:
            report = check_data(name, decode=random.random() < 0.7)
            report.table(), report.lines(), report.to_dict()
            return
        dataset = open_split(
            name,
            random.choice(("train", "test", "val") if broken else ("train", "test")),
            pil_to_tensor,
            skip_broken=random.random() < 0.3,
        )
        dataset.check()
        for i in range(min(3, len(dataset))):
            dataset[i], dataset.ground_truth(i)

    return run


def _images(root: Path, broken: Sequence[Path], random: Random) -> None:
    upright, file = random.random() < 0.7, str(broken[0].relative_to(root) if broken else "images/alpha.png")
    match random.randrange(4):
        case 0:
            read_image(file, root, upright=upright)
        case 1:
            read_header(root, file, upright)
        case 2:
            read_mask(root, file, upright)
        case _ if broken:
            read_trimap(root, file)


def _score_maps(root: Path, broken: Sequence[Path], random: Random) -> None:
    path = random.choice([root / "maps", *(root / "stacks").glob("maps.*")])
    resize, scale = random.random() < 0.6, random.choice((None, 255, 1e-300))
    maps = StoredMaps(path, IDS, resize=resize, normalize=random.random() < 0.6, scale=scale if broken else None)
    for i in range(len(IDS)):
        maps[i]


def _predictions(root: Path, broken: Sequence[Path], random: Random) -> None:
    for file in sorted((root / "stacks").glob("ranked.*")):
        if file in broken or not broken:
            read_ranked_classes(file, IDS, ("ant", "bee"))


def _evaluation(root: Path, broken: Sequence[Path], random: Random) -> None:
    dataset = open_split(str(root / "data"), "test", pil_to_tensor)
    maps, ranked = StoredMaps(root / "maps", dataset.ids), root / "stacks" / "ranked.csv"
    evaluate_scoremaps(maps, dataset, Evaluator("test", 0.05), predictions=ranked)


def _yaml(root: Path, broken: Sequence[Path], random: Random) -> None:
    file = root / "recipes" / "recipe.yaml"
    if random.random() < 0.5:
        random.choice((train_defaults, plan_defaults))(["train", "--recipe", str(file), "--data", str(root / "data")])
    else:
        config = TrainConfig.from_yaml(file.read_text(encoding="utf-8", errors="replace"), str(file))
        TrainConfig.from_yaml(config.absolute().to_yaml())


def _comparison(root: Path, broken: Sequence[Path], random: Random) -> None:
    plan = read_comparison(root / "comparison" / "plan.yaml")
    results = [read_result(run, root / "compared", plan) for run in plan.runs[:20]]
    tables(plan, results), to_json(plan, results)


def _weights(root: Path, broken: Sequence[Path], random: Random) -> None:
    for file in broken or (root / "weights").iterdir():
        create_backbone("small_cnn", str(file))


def _checkpoint(root: Path, broken: Sequence[Path], random: Random) -> None:
    model, _ = load_network(root / "run")
    with torch.no_grad():
        model.localize(torch.zeros(1, 3, 32, 32))


def _features(root: Path, broken: Sequence[Path], random: Random) -> None:
    dataset = open_split(str(root / "data"), "train", lambda image: pil_to_tensor(image.resize((8, 8))) / 255.0)
    backbone = create_backbone("small_cnn", "random").eval()
    torch.manual_seed(0)
    for parameter in backbone.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    batches = [(dataset[i][0][None], torch.zeros(1)) for i in range(len(dataset))]
    for _ in range(2):
        cached = cached_features(backbone, dataset, batches, 8, root / "features")
        cached.__getitems__([0, len(cached) - 1]), cached[0]
        for file in (root / "features").glob("*.npy"):
            from tests.fuzz.mutate import mutate

            file.write_bytes(mutate(file.name, file.read_bytes(), random))


def _found(root: Path, broken: Sequence[Path], random: Random) -> None:
    if broken:
        find_images([random.choice((str(root / "images"), "")) + random.choice(("/", "")) + random.choice(TEXTS)])


def _given(random: Random, *options: str) -> list[str]:
    """Give some of these options a value that nobody expects."""
    chosen = [each for each in options if random.random() < 0.6 / len(options)]
    return [part for each in chosen for part in (each, str(odd(random))[:3000].replace("\0", ""))]


def _switches(random: Random, *switches: str) -> list[str]:
    return [each for each in switches if random.random() < 0.2]


FORMS = ("--json", "--csv", "--paper")


def _train(root: Path, broken: Sequence[Path], random: Random) -> list[str]:
    if not broken or random.random() < 0.3:
        given = ["train", str(root / "run"), "--resume", "auto", "--data", str(root / "data")]
    else:
        data = random.choice(("{}/data", "{}/classes", "cub:{}/wsol", "shards:{}/shards", "{}/data")).format(root)
        given = [
            "train",
            str(root.parent / "out" / "run"),
            "--data",
            data,
            *_given(random, "--learning-rate", "--validate", "--temperature", "--threshold", "--clip", "--ema-decay"),
        ]
        given += ["--recipe", str(root / "recipes" / "recipe.yaml")] * (random.random() < 0.4)
        given += ["--weights", str(root / "weights" / random.choice(("plain.pt", "old.pth")))] * (random.random() < 0.3)
        given += ["--freeze-backbone", "--feature-cache", str(root.parent / "out")] * (random.random() < 0.2)
    return [*given, *SMALL, "--classes-per-batch", "2", "--images-per-class", "1", "--workers", "0"]


def _evaluate(root: Path, broken: Sequence[Path], random: Random) -> list[str]:
    out = str(root.parent / "out")
    more = [*_given(random, "--step", "--threshold", "--split", "--data", "--maps"), *_switches(random, *FORMS)]
    more += ["--details", out] * (random.random() < 0.3) + ["--save-maps", out] * (random.random() < 0.3)
    return ["evaluate", str(root / "run"), "--device", "cpu", *(more if broken else ())]


def _score(root: Path, broken: Sequence[Path], random: Random) -> list[str]:
    more = ["--predictions", str(root / "stacks" / random.choice(("ranked.csv", "ranked.npy")))] * (
        random.random() < 0.6
    )
    more += [
        *_given(random, "--step", "--scale", "--threshold", "--split"),
        *_switches(random, *FORMS, "--resize", "--normalize"),
    ]
    more += ["--details", str(root.parent / "out")] * (random.random() < 0.3)
    maps = random.choice(("maps", "stacks/maps.npy", "stacks/maps.npz"))
    return ["score", str(root / maps), "--data", str(root / "data"), *(more if broken else ())]


def _confidence(root: Path, broken: Sequence[Path], random: Random) -> list[str]:
    folder = str(root / "details")
    second = [random.choice((folder, f"{folder}/images.csv"))] * (random.random() < 0.5)
    return ["confidence", folder, *second, *(_given(random, "--seed") if broken else ()), *_switches(random, "--json")]


def _report(root: Path, broken: Sequence[Path], random: Random) -> list[str]:
    more = [
        *_given(random, "--limit", "--split", "--maps", "--data"),
        *["--out", str(root.parent / "out" / "page.html")] * (random.random() < 0.3),
    ]
    return ["report", str(root / "run"), "--device", "cpu", *(more if broken else ())]


def _localize(root: Path, broken: Sequence[Path], random: Random) -> list[str]:
    out = root.parent / "out"
    more = _given(random, "--threshold", "--top-k", "--max-objects", "--batch-size", "--map", "--format")
    more += _switches(random, "--skip-broken") + ["--refine", random.choice(("guided", "grabcut"))] * (
        random.random() < 0.3
    )
    for option in ("--overlays", "--masks"):
        more += [option, str(out / option[2:])] * (random.random() < 0.2)
    form = random.choice(("json", "csv", "coco", "coco-rle", "labelstudio", "yolo", "yolo-seg", "voc"))
    more += ["--format", form, "--output", str(out / "boxes")] * (random.random() < 0.5)
    images = random.choice(([str(root / "images")], [str(root / "images/*.png")], list(map(str, broken)) or ["-"]))
    return [
        "localize",
        *(images if broken else [str(root / "images")]),
        "--model",
        str(root / "run"),
        "--device",
        "cpu",
        *(more if broken else ()),
    ]


def _export(root: Path, broken: Sequence[Path], random: Random) -> list[str]:
    return [
        "export",
        str(root / "run"),
        str(root.parent / "out" / "network.pt2"),
        *(_given(random, "--map") if broken else ()),
    ]


def _compare(root: Path, broken: Sequence[Path], random: Random) -> list[str]:
    more = _given(random, "--jobs", "--data") if broken else ()
    return ["compare", str(root / "comparison" / "plan.yaml"), str(root / "compared"), *more]


SOURCES = (
    "{}/data",
    "{}/classes",
    "cub:{}/wsol",
    "ilsvrc:{}/wsol",
    "openimages:{}/wsol",
    "ilsvrc-proxy:{}/wsol",
    "pet:{}/pet",
    "shards:{}/shards",
)


def _check(root: Path, broken: Sequence[Path], random: Random) -> list[str]:
    known = not broken or random.random() < 0.9
    source = random.choice(SOURCES).format(root) if known else str(odd(random))[:3000].replace("\0", "")
    return ["data", "check", source, *_switches(random, "--decode", "--json", "--raw-orientation")]


def _pack(root: Path, broken: Sequence[Path], random: Random) -> list[str]:
    source = random.choice(SOURCES).format(root)
    return ["data", "pack", source, str(root.parent / "out" / "packed"), *(_given(random, "--split") if broken else ())]


def _plan(root: Path, broken: Sequence[Path], random: Random) -> list[str]:
    more = _given(
        random,
        "--batch",
        "--memory",
        "--classes",
        "--hidden",
        "--image-size",
        "--output-stride",
        "--out-index",
        "--ranks",
    )
    recipe = ["--recipe", str(root / "recipes" / "recipe.yaml")] * (random.random() < 0.6)
    return ["plan", "--backbone", "small_cnn", "--batch", "2", *recipe, *(more if broken else ())]


METADATA = ("wsol/metadata/{0}/*/*.txt", "wsol/{0}/**/*.png")
RUN = ("run/config.yaml", "run/*.json", "run/checkpoints/*.pt")
DATA = ("data/*.csv", "data/**/*.png")
TARGETS = {
    "csv": Target(("data/*.csv", "data/*.csv", "data/**/*.png"), _source("{}/data")),
    "class-folders": Target(("classes/*/*",), _source("{}/classes")),
    "images": Target(("images/*",), _images),
    "cub": Target(tuple(each.format("CUB") for each in METADATA), _source("cub:{}/wsol")),
    "ilsvrc": Target(tuple(each.format("ILSVRC") for each in METADATA), _source("ilsvrc-proxy:{}/wsol")),
    "openimages": Target(tuple(each.format("OpenImages") for each in METADATA), _source("openimages:{}/wsol")),
    "pet": Target(("pet/*/annotations/*.txt", "pet/*/**/*.[jp][pn]g"), _source("pet:{}/pet")),
    "shards": Target(
        ("shards/*/*.tar", "shards/*/*.tar", "shards/*/*.npz", "shards/*.txt"), _source("shards:{}/shards"), ("shards",)
    ),
    "score-maps": Target(("maps/*/*.npy", "stacks/maps.*"), _score_maps),
    "predictions": Target(("stacks/ranked.*",), _predictions),
    "evaluation": Target(("maps/*/*.npy", "stacks/ranked.csv", "data/test.csv"), _evaluation),
    "details": Target(("details/images.csv",), lambda root, *_: (read_images(root / "details"), None)[1]),
    "recipes": Target(("recipes/*.yaml",), _yaml),
    "comparisons": Target(
        ("comparison/*.yaml", "compared/runs/*/*/*.json", "compared/runs/*/*/*/*.json"), _comparison, ("compared",)
    ),
    "weights": Target(("weights/*",), _weights),
    "checkpoints": Target(("run/checkpoints/*.pt",), _checkpoint),
    "runs": Target(("run/metrics.json",), lambda root, *_: (load(root / "run", "cpu"), None)[1]),
    "features": Target(("data/train.csv",), _features, ("features",)),
    "names": Target(("images/alpha.png",), _found),
    "train": Target(
        (*RUN, *DATA, "recipes/*.yaml", "weights/*", "classes/*/*", "wsol/metadata/CUB/*/*.txt", "shards/*/*.tar"),
        _train,
        ("run", "shards"),
    ),
    "evaluate": Target((*RUN, *DATA), _evaluate, ("run",)),
    "score": Target(("maps/*/*.npy", "stacks/*", *DATA), _score),
    "confidence": Target(("details/images.csv",), _confidence),
    "report": Target((*RUN, "run/metrics.json", *DATA), _report, ("run",)),
    "localize": Target((*RUN, "images/*"), _localize),
    "export": Target(RUN, _export),
    "compare": Target(
        ("comparison/*.yaml", "compared/*.json", "compared/runs/**/*.json", "compared/runs/**/*.yaml"),
        _compare,
        ("compared",),
    ),
    "data-check": Target(
        (*DATA, "classes/*/*", "wsol/metadata/*/*/*.txt", "pet/*/annotations/*.txt", "shards/**/*.*"),
        _check,
        ("shards",),
    ),
    "data-pack": Target((*DATA, "classes/*/*", "wsol/metadata/*/*/*.txt", "shards/**/*.*"), _pack, ("shards",)),
    "plan": Target(("recipes/*.yaml",), _plan),
}
