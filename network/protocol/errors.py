"""What reading or checking a ledger can end in, apart from a value.

ProtocolError
+- DecodeError            bytes are not the message they should be
+- LimitExceededError     a message is larger than any limit of Fabric's own
+- ConfigurationError     a channel configuration cannot be used
+- ConfigUpdateError      an update of the configuration is refused
+- IdentityError          an identity is not valid in the channel
+- PolicyError            a set of signatures does not satisfy a policy
+- CompositeKeyError      parts cannot make a composite key
+- DefinitionError        a chaincode definition cannot be approved or committed
   +- NotDefinedError     no definition of this chaincode is committed
+- ProposalError          a proposal cannot be simulated
+- PackageError           bytes are not a chaincode package
"""

from typing import ClassVar


class ProtocolError(Exception):
    """Base of every error of `network.protocol`; `code` is stable and safe to log."""

    code: ClassVar[str] = "protocol_error"


class DecodeError(ProtocolError):
    """The bytes are not the message they should be; the text names the message and the place, never a value."""

    code = "decode_error"


class LimitExceededError(DecodeError):
    """A size or a count is beyond what a Fabric network can produce (`network.protocol.limits`)."""

    code = "limit_exceeded"


class ConfigurationError(ProtocolError):
    """A channel configuration lacks or contradicts what Fabric demands of it."""

    code = "configuration_error"


class ConfigUpdateError(ProtocolError):
    """An update cannot be applied to the configuration in force; the text is the one Fabric's nodes give."""

    code = "config_update_refused"


class IdentityError(ProtocolError):
    """A serialised identity does not parse, or is not valid under the MSPs of the channel."""

    code = "identity_error"


class PolicyError(ProtocolError):
    """The signatures given do not satisfy the policy named in the text."""

    code = "policy_not_satisfied"


class CompositeKeyError(ProtocolError):
    """Parts cannot make a composite key; the text names the part by its position, never its content."""

    code = "composite_key"


class DefinitionError(ProtocolError):
    """A chaincode definition cannot be approved or committed; the text is the one Fabric's peers give."""

    code = "definition_error"


class NotDefinedError(DefinitionError):
    """No definition of this chaincode is committed on the channel."""

    code = "not_defined"


class ProposalError(ProtocolError):
    """A proposal does not parse, is not its creator's, or was not endorsed; the text is the one Fabric's peers give."""

    code = "invalid_proposal"


class PackageError(ProtocolError):
    """The bytes are not a chaincode package; the text is the one Fabric's peers give where they refuse it too."""

    code = "invalid_package"
