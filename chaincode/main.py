"""The command `kvr chaincode`.

Exit status: 0 stopped by a signal, 1 the server cannot start (the reason is printed), 2 wrong usage.
"""

import asyncio
import importlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from chaincode.errors import ServerSettingsError
from chaincode.shim.handler import Invoke
from chaincode.shim.server import ServerSettings, TlsFiles, serve

chaincode = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they can show what variables held
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Serve contracts to the peers of one organisation.",
)


@chaincode.callback()
def _group() -> None:
    """Keep `chaincode` a group of commands."""


@chaincode.command("serve")
def serve_command(  # noqa: PLR0913, PLR0917  # one parameter per option
    contract: Annotated[
        str, typer.Argument(metavar="MODULE:NAME", help="The contract, e.g. chaincode.service:contract.")
    ],
    address: Annotated[
        str, typer.Option("--address", envvar="CHAINCODE_SERVER_ADDRESS", help="Host and port to listen on.")
    ] = "127.0.0.1:9999",
    package_id: Annotated[
        str,
        typer.Option(
            "--package-id",
            envvar=["CHAINCODE_ID", "CORE_CHAINCODE_ID_NAME"],
            help="Package id that the peers know, label:sha256.",
        ),
    ] = "",
    msp_id: Annotated[
        str,
        typer.Option("--msp-id", envvar="CORE_PEER_LOCALMSPID", help="The organisation whose peers are served."),
    ] = "",
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", envvar="CHAINCODE_TLS_CERT", help="PEM file.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", envvar="CHAINCODE_TLS_KEY", help="PEM file.")] = None,
    client_ca: Annotated[
        Path | None,
        typer.Option(
            "--client-ca", envvar="CHAINCODE_CLIENT_CA_CERT", help="PEM file: who signs the peers' certificates."
        ),
    ] = None,
    any_client: Annotated[bool, typer.Option("--any-client", help="TLS without certificates of clients.")] = False,
    plaintext: Annotated[
        bool, typer.Option("--plaintext", help="No TLS at all: for trying things on one machine.")
    ] = False,
    grace: Annotated[
        float, typer.Option("--grace", min=0, help="Seconds for running transactions when stopped.")
    ] = 10.0,
) -> None:
    """Serve a contract until SIGTERM or SIGINT."""
    _log_to_stderr()
    try:
        settings = ServerSettings(
            address=address,
            package_id=package_id,
            msp_id=msp_id,
            tls=_tls(tls_cert, tls_key, client_ca, any_client=any_client, plaintext=plaintext),
            grace_seconds=grace,
        )
        asyncio.run(serve(_load(contract), settings))
    except ServerSettingsError as error:
        typer.echo(f"error[settings]: {error}", err=True)
        raise typer.Exit(1) from error


def _tls(
    certificate: Path | None, key: Path | None, client_ca: Path | None, *, any_client: bool, plaintext: bool
) -> TlsFiles | None:
    """Give the files, or None for plaintext that was asked for; anything left open is an error."""
    if plaintext:
        if certificate or key or client_ca:
            raise ServerSettingsError("--plaintext contradicts the TLS files that are named")
        return None
    if certificate is None or key is None:
        raise ServerSettingsError("--tls-cert and --tls-key are needed; without TLS only with --plaintext")
    if (client_ca is None) is not any_client:
        raise ServerSettingsError(
            "either --client-ca names who signs the peers' certificates, or --any-client takes all"
        )
    return TlsFiles(certificate, key, client_ca)


def _load(name: str) -> Invoke:
    module_name, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109  # as `python -m` does: contracts of a project beside it
    try:
        loaded = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ServerSettingsError(f"there is no contract {name!r}: {error}") from error
    if not callable(loaded):
        raise ServerSettingsError(f"{name!r} is no contract")
    invoke: Invoke = loaded
    return invoke


class _JsonFormatter(logging.Formatter):
    """One JSON object per line; only facts that this package writes."""

    FACTS = ("tx_id", "function", "status", "duration_ms", "error", "where", "reason", "port", "tls", "type", "ready")

    def format(self, record: logging.LogRecord) -> str:
        facts = {name: getattr(record, name) for name in self.FACTS if hasattr(record, name)}
        return json.dumps({"level": record.levelname.lower(), "event": record.getMessage(), **facts}, sort_keys=True)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter())
    logger = logging.getLogger("chaincode")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
