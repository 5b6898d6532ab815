"""Turns the comments of protos/ into docs/api.md.

Usage: gen_api_docs.py DESCRIPTORS >docs/api.md
DESCRIPTORS is a FileDescriptorSet with source info, as protoc writes it. Each file becomes a section: its
services, with every rpc and that rpc's own request and reply, then the types that they share. Equal input
gives equal output, for `make gen-check` compares.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

_TYPE_NAMES = {
    number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()
}

_HEAD = """\
<!-- Generated from protos/ by `make gen`; edit the comments there. -->

# API reference
"""


class ApiFile:
    """One .proto file, whose parts are found by the paths that its source info uses."""

    def __init__(self, proto: FileDescriptorProto) -> None:
        self.proto = proto
        self._comments = {
            tuple(location.path): _dedent(location.leading_comments or location.trailing_comments)
            for location in proto.source_code_info.location
        }
        self.messages = dict(self._messages())
        self.enums = dict(self._enums())

    def comment(self, *path: int) -> str:
        """Returns the comment on the part at `path`; empty if it has none."""
        return self._comments.get(path, "")

    def _messages(self) -> Iterator[tuple[str, tuple[DescriptorProto, tuple[int, ...]]]]:
        for index, message in enumerate(self.proto.message_type):
            yield from _nested(message, "", (FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER, index))

    def _enums(self) -> Iterator[tuple[str, tuple[EnumDescriptorProto, tuple[int, ...]]]]:
        for index, enum in enumerate(self.proto.enum_type):
            yield enum.name, (enum, (FileDescriptorProto.ENUM_TYPE_FIELD_NUMBER, index))
        for outer, (message, path) in self.messages.items():
            for index, enum in enumerate(message.enum_type):
                yield f"{outer}.{enum.name}", (enum, (*path, DescriptorProto.ENUM_TYPE_FIELD_NUMBER, index))


def main(descriptors: Path) -> None:
    """Prints the reference for the FileDescriptorSet in `descriptors`."""
    files = [ApiFile(proto) for proto in FileDescriptorSet.FromString(descriptors.read_bytes()).file]
    # Files with a service come first: a reader looks for a call, and follows links to the types.
    files.sort(key=lambda file: (not file.proto.service, file.proto.name))
    blocks = [_HEAD, _contents(files), *(block for file in files for block in _file(file))]
    print("\n\n".join(block.strip("\n") for block in blocks if block))


def _contents(files: Iterable[ApiFile]) -> str:
    services = [service for file in files for service in file.proto.service]
    return "\n".join(f"- {_link(service.name)}: {_rpc_links(service)}" for service in services)


def _rpc_links(service: ServiceDescriptorProto) -> str:
    return ", ".join(f"[{rpc.name}](#{_anchor(f'{service.name}.{rpc.name}')})" for rpc in service.method)


def _file(file: ApiFile) -> Iterator[str]:
    shown: set[str] = set()
    for index, service in enumerate(file.proto.service):
        yield from _service(file, index, service, shown)
    if not file.proto.service:
        yield f"## {Path(file.proto.name).name}"
        yield file.comment(FileDescriptorProto.SYNTAX_FIELD_NUMBER)
    for name in file.messages:
        if name not in shown:
            yield from _message(file, name, "###")
    for name in file.enums:
        yield from _enum(file, name)


def _service(file: ApiFile, index: int, service: ServiceDescriptorProto, shown: set[str]) -> Iterator[str]:
    path = (FileDescriptorProto.SERVICE_FIELD_NUMBER, index)
    yield f"## {service.name}"
    yield file.comment(*path)
    for rpc_index, rpc in enumerate(service.method):
        yield f"### {service.name}.{rpc.name}"
        yield _signature(rpc)
        yield file.comment(*path, ServiceDescriptorProto.METHOD_FIELD_NUMBER, rpc_index)
        for name in (_local(file, rpc.input_type), _local(file, rpc.output_type)):
            if name in file.messages and name not in shown:
                shown.add(name)
                yield from _message(file, name, "####")


def _signature(rpc: MethodDescriptorProto) -> str:
    request = ("stream " if rpc.client_streaming else "") + _short(rpc.input_type)
    reply = ("stream " if rpc.server_streaming else "") + _short(rpc.output_type)
    return f"```proto\nrpc {rpc.name}({request}) returns ({reply})\n```"


def _message(file: ApiFile, name: str, heading: str) -> Iterator[str]:
    message, path = file.messages[name]
    yield f"{heading} {name}"
    yield file.comment(*path)
    rows = [
        f"| `{field.name}` | {_field_type(file, message, field)} | "
        f"{_cell(file.comment(*path, DescriptorProto.FIELD_FIELD_NUMBER, index))} |"
        for index, field in enumerate(message.field)
    ]
    yield "\n".join(["| field | type | meaning |", "|---|---|---|", *rows]) if rows else "It has no fields."


def _enum(file: ApiFile, name: str) -> Iterator[str]:
    enum, path = file.enums[name]
    yield f"### {name}"
    yield file.comment(*path)
    rows = [
        f"| `{value.name}` | {value.number} | "
        f"{_cell(file.comment(*path, EnumDescriptorProto.VALUE_FIELD_NUMBER, index))} |"
        for index, value in enumerate(enum.value)
    ]
    yield "\n".join(["| value | number | meaning |", "|---|---|---|", *rows])


def _field_type(file: ApiFile, message: DescriptorProto, field: FieldDescriptorProto) -> str:
    entry = _map_entry(message, field)
    if entry:
        key, value = (_type(file, part) for part in entry.field)
        return f"map of {key} to {value}"
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {_type(file, field)}"
    if field.proto3_optional:
        return f"optional {_type(file, field)}"
    if field.HasField("oneof_index"):
        return f"{_type(file, field)}, one of `{message.oneof_decl[field.oneof_index].name}`"
    return _type(file, field)


def _map_entry(message: DescriptorProto, field: FieldDescriptorProto) -> DescriptorProto | None:
    """Returns the hidden message by which protobuf encodes a map field, or None for any other field."""
    name = field.type_name.rpartition(".")[2]
    return next(
        (inner for inner in message.nested_type if inner.options.map_entry and inner.name == name), None
    )


def _type(file: ApiFile, field: FieldDescriptorProto) -> str:
    if not field.type_name:
        return _TYPE_NAMES[field.type]
    in_package = field.type_name.startswith(f".{file.proto.package}.")
    return _link(_local(file, field.type_name)) if in_package else f"`{field.type_name[1:]}`"


def _local(file: ApiFile, type_name: str) -> str:
    """Returns `type_name` as it is called inside the file's package, e.g. Outer.Inner."""
    return type_name.removeprefix(f".{file.proto.package}.")


def _short(type_name: str) -> str:
    return type_name.rpartition(".")[2]


def _nested(
    message: DescriptorProto, prefix: str, path: tuple[int, ...]
) -> Iterator[tuple[str, tuple[DescriptorProto, tuple[int, ...]]]]:
    """Yields `message` and the messages inside it, by qualified name; without those that encode maps."""
    if message.options.map_entry:
        return
    yield prefix + message.name, (message, path)
    for index, inner in enumerate(message.nested_type):
        inner_path = (*path, DescriptorProto.NESTED_TYPE_FIELD_NUMBER, index)
        yield from _nested(inner, f"{prefix}{message.name}.", inner_path)


def _dedent(comment: str) -> str:
    return "\n".join(line.removeprefix(" ").rstrip() for line in comment.strip("\n").split("\n"))


def _cell(comment: str) -> str:
    """Fits a comment into a table: paragraphs end in <br>, and a bar is no column's end."""
    paragraphs = re.split(r"\n{2,}", comment)
    return "<br>".join(" ".join(paragraph.split()) for paragraph in paragraphs).replace("|", "\\|")


def _link(name: str) -> str:
    return f"[{name}](#{_anchor(name)})"


def _anchor(heading: str) -> str:
    """Returns the id that GitHub gives to `heading`."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
