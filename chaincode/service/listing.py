"""One page of records of one type, in the order of their keys."""

from collections.abc import Sequence
from typing import Any

from chaincode.contract.context import Context
from chaincode.errors import InvalidArgumentError
from chaincode.service.record import check_range, decode_record
from chaincode.shim.composite_key import composite_range

LARGEST_PAGE = 200


async def list_page(
    context: Context, object_type: str, attributes: Sequence[str], page_size: int, bookmark: str
) -> dict[str, Any]:
    """Give records and the bookmark of the next page, empty at the end; raises InvalidArgumentError."""
    check_range(page_size, 1, LARGEST_PAGE, "page_size")
    start, end = composite_range(object_type, attributes)
    if bookmark and not start <= bookmark < end:
        raise InvalidArgumentError("'bookmark' is none of this listing")
    page = await context.stub.get_composite_key_page(object_type, attributes, page_size, bookmark)
    return {"records": [decode_record(entry.value) for entry in page.entries], "bookmark": page.bookmark}
