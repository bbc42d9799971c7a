"""Build backend of `mini-torrent-native`: setuptools, and `ziglang` where there is no compiler."""

from __future__ import annotations

from typing import Any

from build_library import system_compiler
from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 - the other hooks are those of setuptools


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Return the requirements of the build beside setuptools."""
    needed: list[str] = build_meta.get_requires_for_build_wheel(config_settings)
    return needed if system_compiler() is not None else [*needed, "ziglang >=0.13,<0.17"]
