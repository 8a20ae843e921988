"""Runs contracts on the servers that their packages name."""

from network.embedded.ledger.chaincode import ChaincodeCall, ChaincodeError, ChaincodeResult, Conversation
from network.embedded.ledger.package_store import PackageStore
from network.embedded.services.chaincode_connection import ConnectionFileError, decode_connection
from network.embedded.services.chaincode_stream import ChaincodeLauncher


class ServedContracts:
    """The contracts of one peer: each package says where its server listens."""

    def __init__(self, packages: PackageStore) -> None:
        self._packages = packages
        self._launcher = ChaincodeLauncher()

    async def execute(self, package_id: str, call: ChaincodeCall, conversation: Conversation) -> ChaincodeResult:
        """Run one transaction; raises ChaincodeError."""
        try:
            connection = decode_connection(self._packages.connection(package_id) or b"")
        except ConnectionFileError as error:
            raise ChaincodeError(f"could not launch chaincode {package_id}: {error}") from error
        return await self._launcher.execute(package_id, connection, call, conversation)

    async def close(self) -> None:
        """End every stream."""
        await self._launcher.close()
