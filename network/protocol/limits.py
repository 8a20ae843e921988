"""Every limit on what we read, in one place, with units.

A real peer caps a gRPC message at 100 MiB (`core/comm/config.go`, `sampleconfig/core.yaml`), so no block it serves is
larger.
"""

MAX_BLOCK_BYTES = 100 * 1024 * 1024
"""Bytes of one serialised block."""

MAX_TRANSACTIONS_PER_BLOCK = 200_000
"""Envelopes in one block; an orderer cuts at some hundreds or thousands, and a real envelope has kilobytes."""

MAX_METADATA_SLOTS = 64
"""Entries of BlockMetadata; Fabric 3 writes five."""

MAX_BLOCK_SIGNATURES = 1_000
"""Orderer signatures looked at in one block."""

MAX_BLOCK_NUMBER = 2**63 - 1
"""Block numbers are unsigned 64-bit on the wire; SQL's bigint is signed."""

MAX_GROUP_DEPTH = 8
"""Nesting of configuration groups; a channel has three levels."""

MAX_UPDATE_GROUP_DEPTH = 40
"""Nesting of groups in an update, where groups that lead nowhere are left out silently; Fabric sets none."""

MAX_POLICY_RULES = 10_000
"""Leaves and gates of one signature policy."""

MAX_POLICY_DEPTH = 32
"""Nesting of gates in one signature policy."""

MAX_PRINCIPAL_DEPTH = 16
"""Nesting of combined principals; Fabric sets none."""

MAX_REMEMBERED_IDENTITIES = 1024
"""Certificates, per MSP, of which the parsed form and the verdict are kept in memory."""

MAX_REMEMBERED_ANSWERS = 4096
"""Answers, per MSP, to "is this identity what that principal asks for" that are kept in memory."""

MAX_REMEMBERED_SIGNATURES = 4096
"""Verdicts on signatures that are kept in memory, some hundred bytes each."""

MAX_REMEMBERED_SIGNATURE_BYTES = 256
"""Bytes of a signature beyond which its verdict is not kept; ECDSA's on the longest curve has 139."""

MAX_REMEMBERED_ENVELOPES = 512
"""Envelopes of which it is kept in memory what checking them came to, and what they do."""

MAX_REMEMBERED_ENVELOPE_BYTES = 16 * 1024
"""Bytes of an envelope beyond which nothing about it is kept in memory."""

MAX_REMEMBERED_CONFIGURATIONS = 8
"""Configurations of channels that are kept ready to judge by."""

MAX_REMEMBERED_IDENTITY_BYTES = 16 * 1024
"""Bytes of a serialised certificate beyond which nothing about it is kept in memory."""

MAX_UNPACKED_PACKAGE_BYTES = 200 * 1024 * 1024
"""Bytes of a chaincode package once unpacked; the code inside it is packed itself, so a real one hardly grows."""

MAX_PACKAGE_METADATA_BYTES = 1024 * 1024
"""Bytes of a package's `metadata.json`; a real one has a hundred."""

MAX_PACKAGE_ENTRIES = 10_000
"""Entries of one archive of a package; Fabric sets none."""
