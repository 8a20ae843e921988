"""A wallet in a folder: `<folder>/<user>/msp` is the MSP folder of a user, as Fabric's tools write it.

All users of a wallet belong to one organisation: a service speaks for one.
"""

import re
import stat
from pathlib import Path
from typing import Final

from gateway.client.errors import CredentialError
from gateway.client.identity import SigningIdentity

USER: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
"""Names of users: what a folder may be called on every system, and never a way out of the wallet."""


class FolderWallet:
    """Identities by the name of their user; read once, then kept until the process ends."""

    def __init__(self, folder: Path, msp_id: str) -> None:
        self._folder = folder
        self._msp_id = msp_id
        self._identities: dict[str, SigningIdentity] = {}

    def identity(self, user: str) -> SigningIdentity | None:
        """Give a user's identity, None when the wallet has no such user.

        Raises CredentialError when there is one that cannot be used: a key that others can read, a link out of the
        wallet, a key of another certificate.
        """
        if USER.fullmatch(user) is None or ".." in user:
            return None
        known = self._identities.get(user)
        if known is not None:
            return known
        msp = self._folder / user / "msp"
        if not msp.is_dir():
            return None
        if self._folder.resolve() not in msp.resolve().parents:
            raise CredentialError(f"wallet: {user} leads out of {self._folder}")
        _check_private(msp / "keystore", user)
        identity = self._identities[user] = SigningIdentity.from_msp_folder(self._msp_id, msp)
        return identity


def _check_private(keystore: Path, user: str) -> None:
    for key in keystore.iterdir():
        mode = key.lstat().st_mode
        if not stat.S_ISREG(mode):
            raise CredentialError(f"wallet: key of {user} is not a plain file")
        if mode & 0o077:
            raise CredentialError(
                f"wallet: key of {user} can be read by others; allow it to its owner alone (chmod 600)"
            )
