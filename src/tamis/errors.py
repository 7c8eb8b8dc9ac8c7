"""Every exception that Tamis raises on purpose.

    TamisError              one sentence: what was found, what was expected, what to do
      UsageError            the command or the call itself is wrong            (exit status 2)
      InputError            an input cannot be read or is not what it claims   (exit status 1)
      OutputError           a result cannot be written                         (exit status 1)
      MissingExtraError     a part of Tamis needs packages that are not there  (exit status 1)
      WeightsError          published weights are absent or altered            (exit status 1)
      TrainingError         a training run cannot go on                        (exit status 1)

    InputWarning            an input was read, but not all of it is sound (a warning, not an error)

Catch `TamisError` to handle all of them. The command line prints the message alone; `--debug` adds the traceback.
"""

from __future__ import annotations


class TamisError(Exception):
    """Base of every deliberate error. `str(error)` is a sentence for a person."""

    exit_status = 1


class UsageError(TamisError):
    """The command or the call itself is wrong: nothing was tried."""

    exit_status = 2


class InputError(TamisError):
    """An input cannot be read, or is not what it claims to be."""


class OutputError(TamisError):
    """A result cannot be written: no permission, no space, no such folder."""


class MissingExtraError(TamisError):
    """Packages of an optional extra are absent. The message holds the command that installs them."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(
            f"This part of Tamis needs the Python package {module!r}, which is not installed: "
            f'run  pip install "tamis[{extra}]"  and try again.'
        )
        self.module = module
        self.extra = extra


class WeightsError(TamisError):
    """Published weights are absent, or differ from their record."""


class TrainingError(TamisError):
    """A training run cannot go on: the loss is not finite, or the batches ended early."""


class InputWarning(UserWarning):
    """An input was read, but something about it is not sound: `str(warning)` is a sentence."""
