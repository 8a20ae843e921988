"""The admin port of an orderer: which channels it serves, and joining one.

Source: orderer/common/channelparticipation/restapi.go. The port takes mutual TLS with a client certificate of the
orderer's organisation.
"""

import asyncio
import json
import secrets
import ssl
from pathlib import Path
from typing import NamedTuple

from network.errors import ReadinessError
from network.native.node_http import Answer, ask

PATH = "/participation/v1/channels"
START_TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 0.02
FOUND = 200
JOINED = (200, 201)


class ClientCredential(NamedTuple):
    """What the admin port asks of a caller: PEM files."""

    certificate: Path
    key: Path
    ca_certificate: Path


async def join_orderer(address: str, genesis_block: bytes, channel: str, credential: ClientCredential) -> None:
    """Make an orderer (host:port of its admin listener) serve a channel; joined already is fine.

    Raises ReadinessError when it does not answer in time or refuses, with its reason.
    """
    tls = _tls(credential)
    if (await _first_answer(address, f"{PATH}/{channel}", tls)).status == FOUND:
        return
    boundary = secrets.token_hex(16)
    form = _form_file("config-block", "genesis.block", genesis_block, boundary)
    kind = f"multipart/form-data; boundary={boundary}"
    try:
        answer = await ask(address, "POST", PATH, tls=tls, content_type=kind, content=form)
    except OSError as error:
        raise ReadinessError(f"orderer at {address} does not join channel {channel}: {error}") from error
    if answer.status not in JOINED:
        raise ReadinessError(f"orderer at {address} does not join channel {channel}: {_reason(answer)}")


def _tls(credential: ClientCredential) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(credential.ca_certificate))
    context.load_cert_chain(str(credential.certificate), str(credential.key))
    return context


def _form_file(field: str, name: str, content: bytes, boundary: str) -> bytes:
    """Write a form of one file (RFC 7578)."""
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode() + content + f"\r\n--{boundary}--\r\n".encode()


async def _first_answer(address: str, path: str, tls: ssl.SSLContext) -> Answer:
    """Ask until the node listens."""
    try:
        async with asyncio.timeout(START_TIMEOUT_SECONDS):
            while True:
                try:
                    return await ask(address, "GET", path, tls=tls)
                except ConnectionRefusedError:
                    await asyncio.sleep(POLL_SECONDS)
                except OSError as error:
                    raise ReadinessError(f"orderer at {address} cannot be asked at its admin port: {error}") from error
    except TimeoutError as error:
        raise ReadinessError(
            f"orderer at {address} did not open its admin port in {START_TIMEOUT_SECONDS:.0f} s"
        ) from error


def _reason(answer: Answer) -> str:
    try:
        told = json.loads(answer.content).get("error")
    except (ValueError, AttributeError):
        told = None
    return str(told) if told else f"status {answer.status}"
