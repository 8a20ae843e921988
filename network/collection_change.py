"""What may change of the collections of a chaincode that is on a channel already, and what to do where it may not."""

from collections.abc import Sequence
from typing import Final

from network.errors import ChannelChangeError
from network.protocol.collection import CollectionConfig, check_against_committed
from network.protocol.errors import DefinitionError

POSSIBLE: Final = (
    "Members, peer counts, memberOnlyRead, memberOnlyWrite and the endorsement policy may change, and collections may "
    "be added. One that exists stays, and so does its blockToLive: add a collection with another name and the wanted "
    "blockToLive, have the contract write there, and leave the old one unused."
)


def check_collection_change(proposed: Sequence[CollectionConfig], committed: Sequence[CollectionConfig]) -> None:
    """Raise ChannelChangeError, saying what is possible, for a change that every peer refuses."""
    try:
        check_against_committed(proposed, committed)
    except DefinitionError as error:
        raise ChannelChangeError(f"{error}. {POSSIBLE}") from error
