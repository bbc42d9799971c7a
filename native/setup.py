"""Wheel of `mini-torrent-native`: one shared object, for every Python of one kind of machine."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from build_library import GLIBC, LIBRARY, build, machine
from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

_made = {"by_zig": False}


class BuildLibrary(build_py):
    """Compile the library into the package."""

    def run(self) -> None:
        super().run()
        output = Path(self.build_lib) / "mini_torrent_native" / LIBRARY
        _made["by_zig"] = build(output)


class Wheel(bdist_wheel):
    """Tag: any Python 3, this kind of machine."""

    def get_tag(self) -> tuple[str, str, str]:
        _, _, system = super().get_tag()
        if _made["by_zig"]:
            system = f"manylinux_{GLIBC.replace('.', '_')}_{machine()}"
        return "py3", "none", system


class Compiled(Distribution):
    """Distribution with a file for one kind of machine."""

    def has_ext_modules(self) -> bool:
        return True


setup(cmdclass={"build_py": BuildLibrary, "bdist_wheel": Wheel}, distclass=Compiled)
