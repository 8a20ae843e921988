"""Functions of a contract, registered one by one, and the way from a transaction to its answer.

Only what is registered can be called; the first parameter is the context and never comes from the client.
"""

import asyncio
import inspect
import logging
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_type_hints

from chaincode.contract.codec import decode_argument, describe_type, encode_json, encode_result, is_supported
from chaincode.contract.context import Context
from chaincode.contract.identity import decode_identity
from chaincode.errors import ContractError, InvalidArgumentError, NotFoundError, PeerRefusedError, ShimError
from chaincode.shim.handler import TX_ID_SHOWN, Answer
from chaincode.shim.stub import Stub

logger = logging.getLogger(__name__)
METADATA_FUNCTION = "org.hyperledger.fabric:GetMetadata"
"""What official tools call to learn the functions of a chaincode."""
Kind = Literal["transaction", "query"]
Function = TypeVar("Function", bound=Callable[..., Awaitable[Any]])


class RegistrationError(TypeError):
    """A function cannot be registered as it is written; the text says why."""


class Parameter(NamedTuple):
    """One argument of a function."""

    name: str
    type: Any
    required: bool


@dataclass(frozen=True)
class Registered:
    """A function that clients can call."""

    name: str
    kind: Kind
    call: Callable[..., Awaitable[Any]]
    parameters: tuple[Parameter, ...]


class Contract:
    """A set of functions under one name; itself the chaincode that the server runs."""

    def __init__(self, name: str, version: str) -> None:
        self.name = name
        self.version = version
        self._functions: dict[str, Registered] = {}

    def transaction(self, function: Function) -> Function:
        """Register a function that writes."""
        return self._register(function, "transaction")

    def query(self, function: Function) -> Function:
        """Register a function that only reads; its writes are refused."""
        return self._register(function, "query")

    @property
    def functions(self) -> tuple[Registered, ...]:
        """All registered functions, by name."""
        return tuple(self._functions[name] for name in sorted(self._functions))

    async def __call__(self, stub: Stub, /) -> Answer:
        """Answer one transaction: what a contract refuses becomes its status, anything else 500 without details."""
        name = ""
        try:
            if stub.arguments[:1] == (METADATA_FUNCTION.encode(),):
                return Answer(payload=encode_json(self.metadata()), function=METADATA_FUNCTION)
            function = self._find(stub.arguments)
            name = function.name
            arguments = _decode_arguments(function, stub.arguments[1:])
            stub.is_read_only = function.kind == "query"
            context = Context(stub, decode_identity(stub.creator), name)
            return Answer(payload=encode_result(await function.call(context, *arguments)), function=name)
        except ContractError as error:
            return Answer(error.status, message=str(error), function=name)
        except PeerRefusedError as error:
            if error.is_access_denial:
                return Answer(403, message="the client may not use this private data collection", function=name)
            return Answer(500, message=str(error), function=name)
        except ShimError as error:  # our own texts, without keys and values
            return Answer(500, message=str(error), function=name)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  # also SystemExit; a text of somebody's exception may hold values
            frames = traceback.extract_tb(error.__traceback__)
            where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
            facts = {"tx_id": stub.tx_id[:TX_ID_SHOWN], "function": name, "error": type(error).__name__, "where": where}
            logger.error("function_failed", extra=facts)  # noqa: TRY400  # a trace quotes values
            return Answer(500, message=f"internal error in {name or 'the contract'}", function=name)

    def metadata(self) -> dict[str, Any]:
        """Describe the contract as the metadata schema of Fabric's contract API does."""
        transactions = [
            {
                "name": function.name,
                "tag": ["SUBMIT" if function.kind == "transaction" else "EVALUATE"],
                "parameters": [
                    {"name": parameter.name, "schema": describe_type(parameter.type)}
                    | ({} if parameter.required else {"description": "may be left out"})
                    for parameter in function.parameters
                ],
            }
            for function in self.functions
        ]
        info = {"title": self.name, "version": self.version}
        return {
            "$schema": "https://hyperledger.github.io/fabric-chaincode-node/main/api/contract-schema.json",
            "info": info,
            "contracts": {
                self.name: {"name": self.name, "info": info, "default": True, "transactions": transactions},
            },
            "components": {"schemas": {}},
        }

    def _register(self, function: Function, kind: Kind) -> Function:
        name: str = getattr(function, "__name__", "")
        is_async: bool = inspect.iscoroutinefunction(function)  # a plain bool: it must not narrow the type
        if not is_async:
            # A plain function would hold up all other transactions, and could not ask the peer for anything.
            raise RegistrationError(f"{name} must be an `async def`")
        if name in self._functions:
            raise RegistrationError(f"{name} is registered twice")
        declared = list(inspect.signature(function).parameters.values())
        hints = get_type_hints(function)
        if not declared or hints.get(declared[0].name, Context) is not Context:
            raise RegistrationError(f"the first parameter of {name} is the Context")
        parameters = []
        for parameter in declared[1:]:
            if parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
                raise RegistrationError(f"{name}: {parameter.name} must be a plain positional parameter")
            if not is_supported(hints.get(parameter.name)):
                raise RegistrationError(
                    f"{name}: {parameter.name} must be declared as str, int, bool, bytes or a dataclass of such"
                )
            required = parameter.default is inspect.Parameter.empty
            parameters.append(Parameter(parameter.name, hints[parameter.name], required))
        self._functions[name] = Registered(name, kind, function, tuple(parameters))
        return function

    def _find(self, arguments: tuple[bytes, ...]) -> Registered:
        if not arguments:
            raise InvalidArgumentError("no function is named")
        prefix = f"{self.name}:".encode()
        function = self._functions.get(arguments[0].removeprefix(prefix).decode(errors="replace"))
        if function is None:
            # What was asked for is the sender's text: it is not repeated.
            raise NotFoundError(f"there is no such function; there are: {', '.join(sorted(self._functions))}")
        return function


def _decode_arguments(function: Registered, given: tuple[bytes, ...]) -> list[Any]:
    parameters = function.parameters
    missing = [parameter.name for parameter in parameters[len(given) :] if parameter.required]
    if missing or len(given) > len(parameters):
        names = ", ".join(parameter.name if parameter.required else f"[{parameter.name}]" for parameter in parameters)
        wrong = f"lacks {', '.join(missing)}" if missing else f"got {len(given)} arguments"
        raise InvalidArgumentError(f"{function.name} takes ({names}); it {wrong}")
    return [
        decode_argument(content, parameter.type, parameter.name)
        for content, parameter in zip(given, parameters, strict=False)
    ]
