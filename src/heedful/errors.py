"""The exception family. Each message is one paragraph: what, where, and what to do next."""


class HeedfulError(Exception):
    """Anything a user can mend. The command line prints it without a traceback and exits with 1."""


class RecordError(HeedfulError, ValueError):
    """A line of a JSONL file that is not the record it should be.

    where: file and line, as in ``preferences.jsonl:41``.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where


class ConfigError(HeedfulError, ValueError):
    """heedful.toml or an argument holds something that cannot be used."""


class SourceError(HeedfulError):
    """A model source cannot be reached or is not a model."""


class StoreError(HeedfulError, OSError):
    """The run directory cannot be read or written."""


class ModelError(HeedfulError):
    """The model or its tokenizer lacks something that the work needs."""


class DataError(HeedfulError, ValueError):
    """The records are well-formed but cannot be used together."""


class TrainingError(HeedfulError, ArithmeticError):
    """Training met a number it must not go on with (NaN reward, overflow)."""


class RewardError(HeedfulError):
    """A source of rewards failed or gave something that is no reward; the policy has not been touched by it."""


class ShapeError(ValueError):
    """Tensors handed to a pure function do not fit each other; our own mistake or a library user's."""
