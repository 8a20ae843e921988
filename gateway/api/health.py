"""`/health`: whether the process lives, and whether it can serve. Nothing about versions, peers or data."""

from fastapi import APIRouter

router = APIRouter(prefix="/health", tags=["health"])


@router.get("/live")
async def live() -> dict[str, str]:
    """Answer while the process answers at all."""
    return {"status": "live"}
