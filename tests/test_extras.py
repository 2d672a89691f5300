"""What `pip install iir-fast` brings trains with the loss; whatever needs more says in one sentence what to install."""

from __future__ import annotations

import json
import os
import pkgutil
import re
import subprocess
import sys
from importlib.metadata import requires, version
from itertools import pairwise
from pathlib import Path

import pytest

import iir_fast
from iir_fast.extras import needs_system

ROOT = Path(__file__).parents[1]
# What the extra installs -> the name that is imported.
SYSTEM = {
    "filelock": "filelock",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "rich": "rich",
    "timm": "timm",
    "torchvision": "torchvision",
    "tyro": "tyro",
}
SENTENCE = r"[\w. ]+ needs \w+, which is not installed: pip install 'iir-fast\[system\]'"
REFUSE = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(SYSTEM.values())}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
"""
# What a loop of one's own may import.
LIGHT = ("functional", "gather", "head", "kernels", "loss", "prototypes", "sampler")
IMPORT = """
import json
import sys
from importlib import import_module

found = {}
for name in sys.argv[1:]:
    try:
        import_module(f"iir_fast.{name}")
        found[name] = ""
    except ModuleNotFoundError as error:
        found[name] = str(error)
print(json.dumps(found))
"""
# A loop of one's own with head and loss, then with the operators they are made of; prints the losses.
TRAIN = """
import json

import torch
import torch.nn.functional as F
from iir_fast import ClassPrototypes, DualCAMHead, IIRLoss, SubgroupSampler
from iir_fast.functional import evidence_map, inter_intra, label_cam, masked_pool, regulate

torch.manual_seed(0)
labels = torch.arange(32) // 8
images = 0.3 * torch.rand(32, 4, 9, 9)
images[torch.arange(32), labels, 2:6, 3:7] += 1  # every class lights up a channel of its own
sampler = SubgroupSampler(labels.tolist(), classes_per_batch=4, images_per_class=2)


def train(parameters, step):
    optimizer = torch.optim.Adam(parameters, 0.01)
    losses = []
    for epoch in range(10):
        sampler.set_epoch(epoch)
        for batch in sampler:
            loss = step(images[batch], labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


backbone, head, loss_fn = torch.nn.Conv2d(4, 8, 3, padding=1), DualCAMHead(8, 4), IIRLoss()
prototypes = ClassPrototypes(4, 8)


def with_head(images, labels):
    out = head(backbone(images).relu(), labels)
    prototypes.update(out.descriptors.foreground.detach(), labels)
    return F.cross_entropy(out.logits_a, labels) + F.cross_entropy(out.logits_b, labels) + loss_fn(out)


weights = torch.nn.Parameter(0.1 * torch.randn(2, 4, 4))


def with_operators(images, labels):
    cams = label_cam(images, weights, labels).cams
    regulated = regulate(cams[:, 0], cams[:, 1])
    regions = masked_pool(images, regulated.masks)
    return inter_intra(regulated.terms, regions.foreground, regions.background, labels, 5.0, 5.0).loss


losses = [train([*backbone.parameters(), *head.parameters()], with_head), train([weights], with_operators)]
with torch.no_grad():
    out = head(backbone(images).relu(), labels)
    maps = evidence_map(out.features, prototypes.evidence_vectors(out.descriptors.background, labels))
print(json.dumps({"losses": losses, "maps": list(maps.shape)}))
"""


def without_system(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A process in which nothing of the extra can be imported."""
    (folder / "sitecustomize.py").write_text(REFUSE)
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_an_installation_without_extras_is_three_distributions():
    names: dict[bool, set[str]] = {False: set(), True: set()}
    for requirement in requires("iir-fast") or []:
        if "extra ==" not in requirement or 'extra == "system"' in requirement:
            names["extra ==" in requirement].add(re.split(r"[^\w-]", requirement)[0])
    assert names == {False: {"torch", "triton", "numpy"}, True: set(SYSTEM)}
    assert version("iir-fast") == iir_fast.__version__


def test_loss_head_and_operators_train_without_the_system(tmp_path):
    result = without_system(tmp_path, sys.executable, "-c", TRAIN)
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    assert printed["maps"] == [32, 1, 9, 9]
    for losses in printed["losses"]:
        quarter = len(losses) // 4
        means = [sum(losses[i * quarter : (i + 1) * quarter]) / quarter for i in range(4)]
        assert all(later < sooner for sooner, later in pairwise(means)), means


def test_whatever_needs_the_system_says_what_to_install(tmp_path):
    names = [found.name for found in pkgutil.iter_modules(iir_fast.__path__) if found.name != "__main__"]
    result = without_system(tmp_path, sys.executable, "-c", IMPORT, *names)
    assert result.returncode == 0, result.stderr
    faults = {name: fault for name, fault in json.loads(result.stdout).items() if fault}
    assert faults.keys() >= {"data", "models", "training"}
    assert faults.keys().isdisjoint(LIGHT)
    assert [name for name, fault in faults.items() if not re.fullmatch(SENTENCE, fault)] == []


@pytest.mark.parametrize("name", ["IIRNetwork", "Localizer", "load", "pretrained"])
def test_names_of_the_root_that_need_the_system_say_what_to_install(name, tmp_path):
    result = without_system(tmp_path, sys.executable, "-c", f"import iir_fast; iir_fast.{name}")
    assert result.returncode == 1
    assert re.fullmatch(f"ModuleNotFoundError: {SENTENCE}", result.stderr.splitlines()[-1])


@pytest.mark.parametrize(
    "command", [[sys.executable, "-m", "iir_fast"], [str(Path(sys.executable).with_name("iir-fast"))]]
)
def test_the_commands_say_what_to_install_in_one_line_and_end_with_2(command, tmp_path):
    result = without_system(tmp_path, *command, "demo", str(tmp_path / "demo"))
    assert result.returncode == 2
    assert re.fullmatch(f"iir-fast: {SENTENCE}\n", result.stderr)
    assert result.stdout == ""


def test_a_module_of_our_own_that_is_missing_is_not_blamed_on_the_extra():
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'iir_fast\.nothing'$"), needs_system("nothing"):
        import iir_fast.nothing  # noqa: F401
