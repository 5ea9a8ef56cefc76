"""What the Open Inference Protocol writes in JSON, as types: its requests, replies, metadata and errors."""

from typing import Any

import msgspec

_Parameters = dict[str, Any]


class InferenceInput(msgspec.Struct):
    """A tensor: numbers or base64 in `data`, or bytes behind the JSON, as many as its `binary_data_size` says."""

    name: str
    shape: list[int]
    datatype: str
    parameters: _Parameters = {}
    data: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class InferenceWanted(msgspec.Struct):
    """An output that is wanted; with the parameter `binary_data`, as bytes behind the JSON."""

    name: str
    parameters: _Parameters = {}


class InferenceRequest(msgspec.Struct):
    """One input, and which outputs are wanted: all of them, if none is named. The reply has the same `id`."""

    inputs: list[InferenceInput]
    outputs: list[InferenceWanted] = []
    id: str | None = None
    parameters: _Parameters = {}


class InferenceOutput(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A tensor of the reply."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float] | msgspec.UnsetType = msgspec.UNSET
    parameters: _Parameters = {}


class InferenceReply(msgspec.Struct, forbid_unknown_fields=True):
    """The outputs, and the release that made them."""

    model_name: str
    model_version: str
    outputs: list[InferenceOutput]
    id: str | msgspec.UnsetType = msgspec.UNSET


class InferenceTensor(msgspec.Struct, forbid_unknown_fields=True):
    """A tensor as the model's metadata has it; -1 is any number of images."""

    name: str
    datatype: str
    shape: list[int]


class InferenceModel(msgspec.Struct, forbid_unknown_fields=True):
    """The model's metadata."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[InferenceTensor]
    outputs: list[InferenceTensor]


class InferenceServer(msgspec.Struct, forbid_unknown_fields=True):
    """The server's metadata."""

    name: str
    version: str
    extensions: list[str]


class InferenceLive(msgspec.Struct, forbid_unknown_fields=True):
    """That the server answers."""

    live: bool


class InferenceReady(msgspec.Struct, forbid_unknown_fields=True):
    """That a worker can embed images."""

    ready: bool


class InferenceModelReady(msgspec.Struct, forbid_unknown_fields=True):
    """That this model can embed images."""

    name: str
    ready: bool


class InferenceError(msgspec.Struct, forbid_unknown_fields=True):
    """An error as the protocol writes it."""

    error: str
