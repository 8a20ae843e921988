"""The admin port of an orderer: which channels it serves, and joining one.

Source: orderer/common/channelparticipation/restapi.go. The port takes mutual TLS with a client certificate of the
orderer's organisation.
"""

import asyncio
import json
import ssl
from pathlib import Path
from typing import NamedTuple

import httpx2

from network.errors import ReadinessError

PATH = "/participation/v1/channels"
TIMEOUT_SECONDS = 20.0
ANSWER_BYTES = 1024 * 1024
START_TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 0.02


class ClientCredential(NamedTuple):
    """What the admin port asks of a caller: PEM files."""

    certificate: Path
    key: Path
    ca_certificate: Path


async def join_orderer(address: str, genesis_block: bytes, channel: str, credential: ClientCredential) -> None:
    """Make an orderer (host:port of its admin listener) serve a channel; joined already is fine.

    Raises ReadinessError when it does not answer in time or refuses, with its reason.
    """
    refused = f"orderer at {address} does not join channel {channel}"
    try:
        async with httpx2.AsyncClient(
            base_url=f"https://{address}", verify=_tls(credential), timeout=TIMEOUT_SECONDS, trust_env=False
        ) as client:
            await _listening(client, address)
            if (await client.get(f"{PATH}/{channel}")).status_code == httpx2.codes.OK:
                return
            answer = await client.post(PATH, files={"config-block": ("genesis.block", genesis_block)})
    except httpx2.HTTPError as error:
        raise ReadinessError(f"{refused}: {str(error) or type(error).__name__}") from error
    if answer.status_code not in (httpx2.codes.CREATED, httpx2.codes.OK):
        raise ReadinessError(f"{refused}: {_reason(answer)}")


def _tls(credential: ClientCredential) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(credential.ca_certificate))
    context.load_cert_chain(str(credential.certificate), str(credential.key))
    return context


async def _listening(client: httpx2.AsyncClient, address: str) -> None:
    try:
        async with asyncio.timeout(START_TIMEOUT_SECONDS):
            while True:
                try:
                    await client.get(PATH)
                except httpx2.ConnectError:
                    await asyncio.sleep(POLL_SECONDS)
                else:
                    return
    except TimeoutError as error:
        raise ReadinessError(
            f"orderer at {address} did not open its admin port in {START_TIMEOUT_SECONDS:.0f} s"
        ) from error


def _reason(answer: httpx2.Response) -> str:
    try:
        told = json.loads(answer.content[:ANSWER_BYTES]).get("error")
    except (ValueError, AttributeError):
        told = None
    return str(told) if told else f"status {answer.status_code}"
