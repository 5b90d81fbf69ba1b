"""What depends on the machine that builds: whether there is a C compiler, and what follows from it. All else about the
build stands in pyproject.toml. The decision is docs/decisions/0022-built-where-it-is-installed.md.

- With a compiler and Python.h every .pyx of the packages is compiled, and pytricia, which is published as source only,
  is depended on.
- Without, the package is plain Python, depends on nothing that must be compiled, and says so in one line.
- WITHOUT_COMPILER=1 in the environment chooses the second on a machine that has a compiler.
- PORTABLE_WHEEL=1 is for wheels that go elsewhere (scripts/wheel): everything is compiled or the build fails, and
  pytricia is left to the extra of that name, because who installs the wheel may have no compiler.
"""

import os
import sys
import tempfile
import tomllib
from pathlib import Path

from setuptools import Distribution, Extension, setup

PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))

DEPENDENCIES = [
    "click>=8.1",
    "dpkt>=1.9.8",
    "prometheus-client>=0.20",
    "pydantic>=2.10",
    "PyNaCl>=1.5",
    "pyroute2>=0.7.12",
    "python-pcapng>=2.1",
    "rich>=13.7",
]
COMPILED_DEPENDENCIES = PROJECT["project"]["optional-dependencies"]["pytricia"]

MOST_COMPILERS = 2  # at once: each takes up to 400 MB, and a small machine has 1 GB
INSTALLING = {"bdist_wheel", "build", "build_ext", "editable_wheel"}


def extensions(*, optional: bool) -> list[Extension]:
    """One for each .pyx. All .pxd count as sources of each: with so few files a needless compilation is cheap."""
    folders = [Path(*package.split(".")) for package in PROJECT["tool"]["setuptools"]["packages"]]
    headers = [str(header) for folder in folders for header in sorted(folder.glob("*.pxd"))]
    return [
        Extension(".".join(source.with_suffix("").parts), [str(source)], depends=headers, optional=optional)
        for folder in folders
        for source in sorted(folder.glob("*.pyx"))
    ]


def can_compile() -> bool:
    """Tried, not guessed: the build's own way from a C file to a module, with whatever CC and CFLAGS say."""
    with tempfile.TemporaryDirectory() as place:
        source = Path(place, "probe.c")
        source.write_text("#include <Python.h>\nPyMODINIT_FUNC PyInit_probe(void) { return NULL; }\n")
        extension = Extension("probe", [str(source)], optional=True)
        command = Distribution({"name": "probe", "ext_modules": [extension]}).get_command_obj("build_ext")
        command.build_temp = command.build_lib = place
        command.ensure_finalized()
        command.run()
        return all(Path(made).exists() for made in command.get_outputs())


portable = bool(os.environ.get("PORTABLE_WHEEL"))
compiles = portable or (not os.environ.get("WITHOUT_COMPILER") and can_compile())
if not compiles and INSTALLING & set(sys.argv):
    sys.stderr.write(
        "tapbridge: nothing is compiled (no C compiler or Python.h, or WITHOUT_COMPILER): plain Python serves, slower\n"
    )
setup(
    ext_modules=extensions(optional=not portable) if compiles else [],
    install_requires=DEPENDENCIES + (COMPILED_DEPENDENCIES if compiles and not portable else []),
    options={"build_ext": {"cython_c_in_temp": True, "parallel": min(os.cpu_count() or 1, MOST_COMPILERS)}},
)
