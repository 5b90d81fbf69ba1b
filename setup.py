"""What is compiled; everything else about the build stands in pyproject.toml.

`optional`: where there is no C compiler or no Python.h, the plain twins serve and the installation goes on.
WITHOUT_COMPILER=1 in the environment leaves the compiled part out also where it could be built.
"""

import os

from setuptools import Extension, setup

COMPILED = [
    Extension("wire.segments", ["wire/segments.pyx"], optional=True),
    Extension("tunnel.burst", ["tunnel/burst.pyx"], optional=True),
    Extension("flow.fast", ["flow/fast.pyx"], optional=True),
    Extension("bridge.ports.burst", ["bridge/ports/burst.pyx"], optional=True),
    Extension("bridge.ports.lanes", ["bridge/ports/lanes.pyx"], optional=True),
]

setup(ext_modules=[] if os.environ.get("WITHOUT_COMPILER") else COMPILED)
