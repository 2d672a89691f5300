"""What pyproject.toml cannot say: the compiled libraries, and for which machines a wheel with them is."""

from collections.abc import Iterable
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
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
            # All or none: a wheel for any machine holds no library, not even one of an earlier build.
            for library in self.get_outputs():
                Path(library).unlink(missing_ok=True)
            # An editable installation copies what was built.
            self.extensions = self.distribution.ext_modules = []


class WheelForEveryPython(bdist_wheel):
    """A wheel for every Python 3: of one platform with the libraries, which know no Python, or of any without."""

    def run(self) -> None:
        self.run_command("build")
        self.root_is_pure = not self.distribution.has_ext_modules()
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[
        _library("iir_fast.kernels.native._kernels", NATIVE.glob("*.cpp"), NATIVE.glob("*.h")),
        _library("iir_fast.evaluation._compiled", EVALUATION.glob("*.cpp"), EVALUATION.glob("*.h")),
    ],
    cmdclass={"build_ext": BuildIfPossible, "bdist_wheel": WheelForEveryPython},
)
