"""`disp report JOB`, `disp report verify FILE`: reports to keep, and whether one is genuine."""

import base64
import binascii
import hashlib
import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from client.commands.connection import open_client
from client.commands.options import ApiKey, Url
from client.errors import DispError, NotFound
from client.sdk import Client
from schemas.signatures import ReportSignature, signed_text

SIGNATURE = ".sig.json"
DEFAULT = "job"


class NotGenuine(DispError):
    """The report is not what the deployment signed."""


class DefaultGroup(TyperGroup):
    """A first word that is no command is the argument of the default one."""

    def parse_args(self, ctx, args):  # type: ignore[no-untyped-def]  # click's own types
        """Put the default command in front where it is meant."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    help="Fetch a job's report (disp report JOB), or verify one.",
    cls=DefaultGroup,
    no_args_is_help=True,
)
Out = Annotated[Path | None, typer.Option(help="The file [JOB.report.json or .html].")]


@app.command(DEFAULT)
def job(
    job_id: Annotated[str, typer.Argument()],
    html: Annotated[bool, typer.Option("--html", help="One page that needs nothing else.")] = False,
    out: Out = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Write a job's report, and its signature beside the JSON if the deployment signs."""
    path = out or Path(f"{job_id}.report.{'html' if html else 'json'}")
    with open_client(url, api_key) as client:
        if html:
            path.write_text(client.report_page(job_id), encoding="utf-8")
            print(path)
            return
        path.write_bytes(client.report_bytes(job_id))
        print(path)
        signature = _signature(client, job_id)
    if signature is None:
        print("this deployment signs no reports", file=sys.stderr)
        return
    beside = path.with_name(path.name + SIGNATURE)
    beside.write_text(signature.model_dump_json(indent=1) + "\n")
    print(beside)


@app.command("verify")
def verify_file(
    report: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    public_key: Annotated[
        str, typer.Option(help="The deployment's, in base64 (`disp report key`).")
    ],
    signature: Annotated[
        Path | None, typer.Option(exists=True, help=f"[REPORT{SIGNATURE}]")
    ] = None,
) -> None:
    """Tell whether a report is what the deployment signed; status 3 if not."""
    beside = signature or report.with_name(report.name + SIGNATURE)
    try:
        found = ReportSignature.model_validate_json(beside.read_bytes())
    except (OSError, ValidationError) as error:
        raise NotGenuine(f"{NotGenuine.__doc__} [{beside}: no signature]") from error
    verify(report.read_bytes(), found, public_key)
    print(f"genuine: the report of {found.job_id}, signed by {public_key}")


@app.command("key")
def key(url: Url = None, api_key: ApiKey = None) -> None:
    """Print the deployment's public key; keep it where who verifies can trust it."""
    with open_client(url, api_key) as client:
        print(client.signing_key().public_key)


def verify(report: bytes, signature: ReportSignature, public_key: str) -> None:
    """Return if the report is signed by the key; raise `NotGenuine` with the reason otherwise."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    sha256 = hashlib.sha256(report).hexdigest()
    if sha256 != signature.sha256:
        raise NotGenuine(f"{NotGenuine.__doc__} [its bytes have changed]")
    if signature.public_key != public_key:
        names = f"{signature.public_key}, not {public_key}"
        raise NotGenuine(f"{NotGenuine.__doc__} [it names another key: {names}]")
    try:
        known = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
        signed = base64.b64decode(signature.signature, validate=True)
        known.verify(signed, signed_text(signature.job_id, sha256))
    except (InvalidSignature, ValueError, binascii.Error) as error:
        raise NotGenuine(f"{NotGenuine.__doc__} [{public_key} has not signed this]") from error


def _signature(client: Client, job_id: str) -> ReportSignature | None:
    """The signature, None where the deployment has no key."""
    try:
        return client.report_signature(job_id)
    except NotFound:
        return None
