"""The command `disp`. Results go to stdout, everything else to stderr.

Exit status: 0 ok, 1 the job failed, 2 usage, 3 refused input, 4 not authorised, 5 unavailable,
130 stopped by its user.
"""

from collections.abc import Sequence

import typer
from pydantic import ValidationError

from client.commands import (
    deployment,
    experiments,
    guard,
    jobs,
    keys,
    models,
    purification,
    report,
    submission,
)
from client.commands.exits import FAILED, NOT_AUTHORISED, REFUSED, UNAVAILABLE, USAGE, leave
from client.config import NotConfigured
from client.errors import Broken, DispError, JobFailed, NotAuthorised, ServiceError, Unavailable
from storage.environment import SecretGivenTwice, SecretUnreadable, read_secret_files
from storage.errors import StorageError

app = typer.Typer(
    name="disp",
    help="Finds, neutralises and unlearns backdoors in visual-instruction data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS = (
    models.export,
    deployment.serve,
    deployment.prepare,
    deployment.worker,
    deployment.reconcile,
    deployment.doctor,
    experiments.demo,
    experiments.poison,
    experiments.bench,
    submission.submit,
    jobs.status,
    jobs.watch,
    jobs.cancel,
    jobs.pause,
    jobs.resume,
    jobs.retry,
    jobs.delete,
    jobs.fetch,
    purification.purify,
)
GROUPS = {"models": models.app, "keys": keys.app, "report": report.app, "guard": guard.app}

for command in COMMANDS:
    app.command()(command)
for name, group in GROUPS.items():
    app.add_typer(group, name=name)


def exit_code(error: DispError) -> int:
    """The status that tells scripts what kind of error it was."""
    match error:
        case JobFailed():
            return FAILED
        case NotConfigured():
            return USAGE
        case NotAuthorised():
            return NOT_AUTHORISED
        case Unavailable() | Broken():
            return UNAVAILABLE
        case ServiceError() | report.NotGenuine():
            return REFUSED
        case _:
            return UNAVAILABLE


def describe(error: ValidationError) -> str:
    """What is wrong with which setting, one line for each."""
    wrong = [(setting_of(entry["loc"]), entry["msg"]) for entry in error.errors()]
    return "\n".join(f"{place}: {message}" if place else message for place, message in wrong)


def setting_of(place: Sequence[int | str]) -> str:
    """The name of a setting as the user gave it, less the method's type in front of it."""
    names = [str(part) for part in place]
    if "hyperparameters" in names:
        names = names[names.index("hyperparameters") + 1 :]
    return ".".join(names)


def main() -> None:
    """Run the command and turn what goes wrong into an exit status."""
    try:
        read_secret_files()
        app()
    except (SecretGivenTwice, SecretUnreadable) as error:
        leave(f"error: {error}", USAGE)
    except DispError as error:
        leave(f"error: {error}", exit_code(error))
    except StorageError as error:
        leave(f"error: {error}", UNAVAILABLE)
    except ValidationError as error:
        leave(f"error: {describe(error)}", USAGE)
    except OSError as error:
        leave(f"error: {error}", USAGE)


if __name__ == "__main__":
    main()
