"""Stand-in for pkg_resources: what the OpenMMLab packages take from it, and nothing else. See `pkg_resources_shim`."""

from __future__ import annotations

import importlib.metadata
import pkgutil
import sys
from typing import NoReturn

__all__ = ["Distribution", "DistributionNotFound", "declare_namespace", "get_distribution"]


class DistributionNotFound(Exception):
    """No distribution of that name is installed."""


class Distribution:
    """An installed distribution, with the part of pkg_resources' interface that is in use."""

    def __init__(self, distribution: importlib.metadata.Distribution) -> None:
        self._distribution = distribution
        self.project_name: str = distribution.metadata["Name"]
        self.version: str = distribution.version
        self.location = str(distribution.locate_file(""))

    def has_metadata(self, name: str) -> bool:
        return self._distribution.read_text(name) is not None

    def get_metadata(self, name: str) -> str:
        text = self._distribution.read_text(name)
        if text is None:
            raise FileNotFoundError(f"{self.project_name} {self.version} has no metadata file {name!r}")
        return text


def get_distribution(dist: str) -> Distribution:
    """Returns the installed distribution of that name.

    Raises:
        DistributionNotFound: There is none.
    """
    try:
        return Distribution(importlib.metadata.distribution(dist))
    except importlib.metadata.PackageNotFoundError as error:
        raise DistributionNotFound(f"The {dist!r} distribution was not found") from error


def declare_namespace(packageName: str) -> None:
    """Makes a package a namespace package.

    Nothing of OpenMMLab calls it. It is here because old namespace packages call it and fall back only on ImportError:
    they run without pkg_resources, and they must run with this stand-in.
    """
    module = sys.modules[packageName]
    module.__path__ = pkgutil.extend_path(module.__path__, packageName)


def __getattr__(name: str) -> NoReturn:
    raise AttributeError(
        f"pkg_resources.{name}: the real pkg_resources is not installed, and the stand-in of eyetoy_mm.compat only has "
        f"{', '.join(__all__)}; to get the real one: pip install 'setuptools<82'"
    )
