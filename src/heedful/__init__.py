"""heedful: align an instruct language model with people's values by learning from their feedback."""

__all__ = ["__version__"]

__version__: str


def __getattr__(name: str) -> str:
    """The version, when it is asked for: looking it up takes a tenth of the time that a command needs to show its help."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("heedful")
    except PackageNotFoundError:  # a source tree on the path, never installed
        return "0+source"
