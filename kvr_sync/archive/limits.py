"""Every limit of the archive, in one place, with units."""

from network.protocol.limits import MAX_BLOCK_BYTES

SEGMENT_BYTES = 64 * 1024 * 1024
"""A segment file of at least this size is not appended to any more; the next frame begins a new one."""

FRAME_BYTES = 32 * 1024 * 1024
"""Bytes of blocks that one frame takes; a single larger block still goes alone."""

MAX_FRAME_BLOCKS = 1_000_000
"""Blocks of one frame; a run of the engine has a thousand."""

MAX_PLAIN_BYTES = max(FRAME_BYTES, MAX_BLOCK_BYTES) + MAX_FRAME_BLOCKS * 16
"""Bytes of one frame before compression, with what stands before each block."""

MAX_CONTENT_BYTES = MAX_PLAIN_BYTES + MAX_PLAIN_BYTES // 128 + 1024
"""Bytes of one frame after it; what cannot be compressed grows by less than this (`ZSTD_COMPRESSBOUND`)."""

MAX_WINDOW_BYTES = 8 * 1024 * 1024
"""Memory that decompression may ask for; what we write asks for 2 MiB at the most."""

MAX_HOLDER_BYTES = 1024
"""Bytes read of what the holder of a lock says of itself."""
