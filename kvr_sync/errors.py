"""Every way the engine can stop, as data that loops decide by.

KvrSyncError
+- ConfigurationError            settings, mapping or anchor are wrong: stop at start
+- SourceError
|  +- SourceUnavailableError     the source cannot be read now
|  +- SourceBehindError          the source ends below our checkpoint
|  +- BlocksNotHeldError         the source starts above our checkpoint
|  +- AccessDeniedError          the peer does not let this identity read the channel
|  +- ChannelNotFoundError       no peer asked knows the channel
+- DecodeError                   bytes are not a block
|  +- ArchiveDamagedError        the files of an archive are not what was written
+- VerificationError             a block does not check out; never retryable on the same bytes
|  +- BlockNumberError           gap or repeat
|  +- PreviousHashError          does not extend our chain
|  +- DataHashError              header and envelopes disagree
|  +- MalformedEnvelopeError     an envelope is not in the form Fabric accepts
|  +- BlockSignatureError        the orderers' policy is not satisfied
|  +- ChannelMismatchError       another channel's block
|  +- ValidationFlagsError       not one verdict per transaction
|  +- ConfigBlockError           a configuration does not follow from the one in force
|  +- CommitHashError            verdicts or writes disagree with the peer's own commit hash
|  +- ForkError                  two validly signed blocks for one number
|  +- PrivateDataHashError       a private value is not the one that the chain holds the hash of
+- SinkError
|  +- SinkUnavailableError       the database cannot be reached; nothing was applied
|  +- CommitOutcomeUnknownError  the acknowledgement of a COMMIT was lost; read the checkpoint
|  +- CheckpointConflictError    someone else moved the checkpoint
|  +- TablesRewoundError         the tables stand at an earlier block than the engine had reached
|  +- MappingChangedError        the tables have another mapping since the engine began
|  +- SinkFullError              no space
|  +- SinkReadOnlyError          the database does not accept writes
|  +- SchemaDriftError           the database does not match the migrations or the mapping
+- ArchiveError
   +- ArchiveUnavailableError    the files of the archive cannot be read or written now
   +- ArchiveFullError           no space
   +- ArchiveInUseError          another engine holds the archive
   +- ArchiveMismatchError       the archive holds another chain
+- TablesBehindError             a reader asked for a block that the tables do not reach yet
"""

from typing import ClassVar, Literal

Outcome = Literal["not_applied", "applied", "unknown"]


class KvrSyncError(Exception):
    """Base of all errors of the engine; messages name places, ids and codes, never values."""

    code: ClassVar[str] = "kvr_sync_error"
    retryable: ClassVar[bool] = False
    outcome: ClassVar[Outcome] = "not_applied"

    @property
    def may_run_again(self) -> bool:
        """Whether a new run can go on where this one ended.

        Also after an unknown outcome: the engine settles those of blocks itself, and a new run reads the checkpoint
        before anything else. What may be lost is the record of a run.
        """
        return self.retryable or self.outcome == "unknown"


class ConfigurationError(KvrSyncError):
    """A setting, a mapping or the trust anchor is wrong. Mend it and start again; nothing was written."""

    code = "configuration_error"


class SourceError(KvrSyncError):
    """The source of blocks cannot be used. Check the path or the peer."""

    code = "source_error"


class SourceUnavailableError(SourceError):
    """The source cannot be read now. It is tried again."""

    code = "source_unavailable"
    retryable = True


class SourceBehindError(SourceError):
    """The source ends below our checkpoint. Not a fork: take another source, or wait."""

    code = "source_behind"
    retryable = True


class BlocksNotHeldError(SourceError):
    """The source starts above the block we need. Take a source that holds it."""

    code = "blocks_not_held"


class AccessDeniedError(SourceError):
    """The peer does not let this identity read the channel: no reader, or an expired certificate. Renew or replace it.

    Nothing repeats by itself: the same identity is refused again.
    """

    code = "access_denied"


class ChannelNotFoundError(SourceError):
    """No peer that was asked knows the channel. Check its name, and that the peer has joined it."""

    code = "channel_not_found"


class DecodeError(KvrSyncError):
    """The bytes are not a block. The text says at which record or byte; take another copy."""

    code = "decode_error"


class ArchiveDamagedError(DecodeError):
    """A file of the archive is not what was written; the text says which and where.

    Put a good copy of that file in its place, or move the whole directory away and begin an empty one: a source that
    has every block fills it again. `kvr sync archive verify` finds every damage.
    """

    code = "archive_damaged"


class VerificationError(KvrSyncError):
    """A block does not check out. The channel stops before it; compare with another organisation's peer."""

    code = "verification_error"

    def __init__(self, message: str, *, block_number: int | None = None) -> None:
        super().__init__(message)
        self.block_number = block_number


class BlockNumberError(VerificationError):
    """A block is missing, repeated or out of order."""

    code = "block_number"


class PreviousHashError(VerificationError):
    """The block does not extend the chain that we hold."""

    code = "previous_hash"


class DataHashError(VerificationError):
    """The header's data hash is not the hash of the envelopes: content was changed."""

    code = "data_hash"


class MalformedEnvelopeError(VerificationError):
    """An envelope is not in the only form Fabric accepts, or a transaction flagged VALID cannot be read."""

    code = "malformed_envelope"


class BlockSignatureError(VerificationError):
    """The signatures do not satisfy the BlockValidation policy of the configuration in force."""

    code = "block_signature"


class ChannelMismatchError(VerificationError):
    """The block belongs to another channel."""

    code = "channel_mismatch"


class ValidationFlagsError(VerificationError):
    """The block does not carry one verdict per transaction. Blocks fetched from an orderer have none: take a peer's."""

    code = "validation_flags"


class ConfigBlockError(VerificationError):
    """A configuration block does not follow from the configuration in force, or cannot be used."""

    code = "config_block"


class CommitHashError(VerificationError):
    """The verdicts or the writes do not give the commit hash that the peer recorded."""

    code = "commit_hash"


class ForkError(VerificationError):
    """Two validly signed blocks exist for one number.

    Stop and compare with every organisation; never choose by machine.
    """

    code = "fork"


class PrivateDataHashError(VerificationError):
    """A peer gave a private value that is not the one whose hash is on the chain. Compare with another member's peer.

    The values of the block are not used, and nothing of it is applied.
    """

    code = "private_data_hash"


class TablesBehindError(KvrSyncError):
    """A reader asked for a block that the tables do not reach yet. Ask again later, or see why the engine is behind."""

    code = "tables_behind"
    retryable = True


class SinkError(KvrSyncError):
    """The database refused. Nothing of the block was applied unless `outcome` says otherwise."""

    code = "sink_error"


class SinkUnavailableError(SinkError):
    """The database cannot be reached or is too busy. Tried again from the checkpoint."""

    code = "sink_unavailable"
    retryable = True


class CommitOutcomeUnknownError(SinkError):
    """The acknowledgement of a COMMIT was lost.

    The checkpoint says whether it happened; it is read, nothing is guessed.
    """

    code = "commit_outcome_unknown"
    outcome = "unknown"


class CheckpointConflictError(SinkError):
    """Another engine moved the checkpoint of this channel. Stop one of the two."""

    code = "checkpoint_conflict"


class TablesRewoundError(SinkError):
    """The tables stand at an earlier block than the engine had reached; nothing was applied. A new run goes on there.

    `kvr sync rewind` brings them back, and so do a restored backup and a standby that had not got everything. Another
    engine never does.
    """

    code = "tables_rewound"
    retryable = True


class MappingChangedError(SinkError):
    """`kvr sync apply` has changed the mapping since the engine began. Nothing was applied under the old one.

    A new run takes up the recorded mapping; one that is given an older mapping by `--mapping` ends, by name.
    """

    code = "mapping_changed"
    retryable = True


class SinkFullError(SinkError):
    """The database has no space left. Make room; work goes on from the checkpoint."""

    code = "sink_full"


class SinkReadOnlyError(SinkError):
    """The database does not accept writes (read-only file, standby server, missing rights)."""

    code = "sink_read_only"


class SchemaDriftError(SinkError):
    """Tables are not as the migrations and the mapping of this database make them.

    The text names the first difference.
    """

    code = "schema_drift"


class ArchiveError(KvrSyncError):
    """The archive of blocks cannot be used. Nothing of the run was applied: blocks go there before they go anywhere."""

    code = "archive_error"


class ArchiveUnavailableError(ArchiveError):
    """The files of the archive cannot be read or written now. Look at the disk; it is tried again."""

    code = "archive_unavailable"
    retryable = True


class ArchiveFullError(ArchiveError):
    """The archive has no space left. Make room; it is tried again, and work goes on from the checkpoint."""

    code = "archive_full"
    retryable = True


class ArchiveInUseError(ArchiveError):
    """Another engine holds the archive of this channel; the text says which. Give each engine a directory of its own.

    Tried again, since the other may be a run that ends.
    """

    code = "archive_in_use"
    retryable = True


class ArchiveMismatchError(ArchiveError):
    """The archive holds another chain than the database or the source. Name the directory that belongs to it."""

    code = "archive_mismatch"
