"""heedful: align an instruct language model with people's values by learning from their feedback."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("heedful")
except PackageNotFoundError:  # a source tree on the path, never installed
    __version__ = "0+source"

__all__ = ["__version__"]
