"""What creating, running and ending a network can end in.

NetworkError
+- TopologyError          the topology file is refused: file, line, reason
+- CredentialError        certificates and keys under the root are missing, damaged or another network's
+- DefinitionFileError    a file that describes a chaincode's collections is refused
+- ChannelChangeError     a change of a channel's configuration makes no sense, or no difference
+- UpdateFileError        a file with an update, or with a configuration, is refused
+- QuorumError            the orderers would lose their quorum
+- NodeError              a node does not exist, or is not in the state that a command needs
+- BinaryError            a program of Fabric's is missing, or of a version that is not supported
+- RootInUseError         another command works on this root
+- RootError              the folder is no network's root, or one of another version or topology
+- PortTakenError         a port of the network is used by another process
+- ProcessStartError      a process could not be started, or ended before it was ready
+- ReadinessError         the network did not become ready in time
+- RecordingError         a channel could not be recorded as one
+- LedgerError            what a node of the embedded network keeps is damaged, or of another channel
   +- BlockNotHeldError   a peer that began with a snapshot does not have this block
"""

from typing import ClassVar


class NetworkError(Exception):
    """Base of the errors of a network; `code` is stable and safe to log, `retryable`: trying again may help."""

    code: ClassVar[str] = "network_error"
    retryable: ClassVar[bool] = False


class TopologyError(NetworkError):
    """The topology file is refused; the text names file, line and reason. Mend the file."""

    code = "topology"


class CredentialError(NetworkError):
    """Certificates or keys under the root are missing, damaged or of another network; never replaced silently."""

    code = "credential"


class DefinitionFileError(NetworkError):
    """A file that describes a chaincode's collections is refused; the text names file and place. Mend the file."""

    code = "definition_file"


class ChannelChangeError(NetworkError):
    """A change of a channel's configuration makes no sense, or no difference; nothing was changed."""

    code = "channel_change"


class UpdateFileError(NetworkError):
    """A file with an update, or with a configuration, is refused; the text names file and place."""

    code = "update_file"


class QuorumError(NetworkError):
    """The orderers would lose their quorum, and nothing could be ordered. `--force` does it all the same."""

    code = "quorum"


class NodeError(NetworkError):
    """A node does not exist, or is not in the state that a command needs; nothing was changed."""

    code = "node"


class BinaryError(NetworkError):
    """A program of Fabric's is missing or not of a supported version. Install it, or say where it is."""

    code = "binary"


class RootInUseError(NetworkError):
    """Another command works on this root. Wait for it, or end it."""

    code = "root_in_use"
    retryable = True


class RootError(NetworkError):
    """The folder is no root of a network, or one of another version or another topology."""

    code = "root"


class PortTakenError(NetworkError):
    """A port of the network is used by another process; the text names port and node. Free it or name another port."""

    code = "port_taken"
    retryable = True


class ProcessStartError(NetworkError):
    """A process could not be started, or ended before it was ready; the text names it and where its log is."""

    code = "process_start"


class ReadinessError(NetworkError):
    """The network did not become ready in time; the text says what it waited for."""

    code = "not_ready"
    retryable = True


class RecordingError(NetworkError):
    """A channel could not be recorded: the folder is in use, or peers disagree. The text says where."""

    code = "recording"


class LedgerError(NetworkError):
    """What a node of the embedded network keeps is damaged or of another channel; the text names file and place."""

    code = "ledger"


class BlockNotHeldError(LedgerError):
    """A peer that began with a snapshot does not have this block; the text is Fabric's. Ask another peer."""

    code = "block_not_held"

    def __init__(self, number: int, first_block: int) -> None:
        super().__init__(
            f"cannot serve block [{number}]. The ledger is bootstrapped from a snapshot. First available block = "
            f"[{first_block}]"
        )
        self.first_block = first_block
