"""Bad input out of good: broken bytes and texts, and files that are whole and say something odd."""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import PurePosixPath
from random import Random
from typing import Any

import torch
import yaml

DEEP = "<deep>"
"""Becomes a list of lists, deeper than a parser's stack; no library writes one."""
NUMBERS = (0, -1, 1, 2, 255, 2**31, -(2**31), 2**63, 2**64, -(2**63), 10**18, 10**400, 0.5, -0.5, 1e308, 5e-324, 1e39)
FLOATS = (float("nan"), float("inf"), float("-inf"))
TEXTS = (
    *("", " ", "\t", "\n", "nan", "-inf", "1e999", "-1", "0x10", "1_000", "9" * 5000, "\x00", "\ufeff", "\u2028", "٣"),
    *("../../escape", "/etc/passwd", "..", ".", "~", "~nobody/x", "a/../b", "\\", "C:\\x", "x" * 300, "x/" * 2000),
    *("=1+1", "@x", "'", '"', '"""', ",", ";", "%s", "{}", "$HOME", "null", "true", "[", "<b>", "é", "\U0001f600"),
    *("procedural", "images:.", "shards:", "cub:/nowhere", "none", "timm", "cuda", "both", "iir", "*", "[!", DEEP),
)
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig", "cp037")
YAMLS = (
    *("&a [*a]", "{a: &a {b: *a}}", "!!python/object/apply:os.system ['true']", "!!binary x", "!!set {a, b}"),
    *(
        "? [1, 2]\n: 3",
        "2020-13-45",
        "2020-01-01",
        "- a\n- b",
        "a: b: c",
        "{" * 3000,
        "%YAML 9.9\n---\na: 1",
        "~",
        ".nan",
    ),
    *(
        "<<: 1",
        "<<: [1]",
        "!!int x",
        "!!float x",
        "!!timestamp x",
        "!!omap [1]",
        "? {a: 1}\n: 2",
        "12e03",
        "0o9",
        "1:99:99",
    ),
    "a: &a [x,x,x,x,x,x,x,x]\n"
    + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 8)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
)


class _Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.system, ("true",)


EVIL = tuple(pickle.dumps({"state_dict": _Evil()}, protocol) for protocol in (0, 2, 4))


def mutate(name: str, content: bytes, random: Random) -> bytes:
    """Break a file in one to three ways; its suffix says what structure it has."""
    structured = STRUCTURED.get(PurePosixPath(name).suffix.lower())
    for _ in range(random.choice((1, 1, 2, 3))):
        try:
            content = (structured if structured and random.random() < 0.75 else break_bytes)(content, random)
        except Exception:  # it is no file of that kind any more
            content = break_bytes(content, random)
    return content


def odd(random: Random) -> Any:
    """Choose a value that nobody expects."""
    kinds = (NUMBERS, FLOATS, TEXTS, (None, True, False, [], {}, [[]], {"": None}, [None], b"\xff"))
    return random.choice(random.choice(kinds))


def break_bytes(content: bytes, random: Random) -> bytes:
    """Flip, cut, insert, repeat or overwrite bytes, mostly near the beginning, where headers are."""
    data = bytearray(content)
    reach = random.choice((16, 64, 512, len(data)))
    at = random.randrange(max(1, min(len(data), reach)))
    match random.randrange(8):
        case 0:
            return b""
        case 1:
            return content[: random.randrange(len(content) + 1)]
        case 2:
            del data[at : at + random.choice((1, 2, 4, 16, 100))]
        case 3:
            data[at:at] = random.randbytes(random.choice((1, 2, 4, 16, 600)))
        case 4:
            data[at:at] = data[at : at + random.choice((4, 64, 1000))] * random.choice((1, 2, 50))
        case 5:
            number = random.choice((0, 1, 2**7, 2**15, 2**16 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1))
            size = random.choice((1, 2, 4, 8))
            data[at : at + size] = (number % 2 ** (8 * size)).to_bytes(size, random.choice(("little", "big")))
        case _:
            for _ in range(random.choice((1, 1, 3, 20))):
                if data:
                    data[min(random.randrange(reach or 1), len(data) - 1)] ^= 1 << random.randrange(8)
    return bytes(data)


def break_text(content: bytes, random: Random) -> bytes:
    """Exchange fields and lines, quotes, separators and encodings."""
    lines = content.decode().split("\n")
    at = random.randrange(len(lines))
    fields = re.split(r"([,;\t: ])", lines[at])
    place, separator = 2 * random.randrange((len(fields) + 1) // 2), random.choice((",", ";", "\t", " ", ":", "|"))
    match random.randrange(12):
        case 0:
            return content.decode().encode(random.choice(ENCODINGS), errors="replace")
        case 1:
            del lines[at]
        case 2:
            lines[at:at] = [lines[random.randrange(len(lines))]] * random.choice((1, 1, 200))
        case 3:
            del fields[place : place + 2]
            lines[at] = "".join(fields)
        case 4:
            lines[at] = lines[at] + separator + str(odd(random))[:6000]
        case 5:
            return content.replace(b",", separator.encode())
        case 6:
            return content.replace(b"\n", random.choice((b"\r", b"\r\n", b"\n\n", b"\x00", b"\x0b", b"\x85")))
        case 7:
            lines[at] = random.choice(('"', "'", "\ufeff", "#", "\x1a")) + lines[at]
        case _:
            fields[place] = (
                str(odd(random))[:6000]
                if random.random() < 0.8
                else fields[2 * random.randrange((len(fields) + 1) // 2)]
            )
            lines[at] = "".join(fields)
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def break_tree(value: Any, random: Random) -> Any:
    """Exchange, remove, repeat or rename a part of lists and dictionaries; they are changed in place."""
    places: list[tuple[Any, Any]] = []
    seen: set[int] = set()

    def collect(node: Any) -> None:
        if id(node) in seen:  # what YAML's aliases repeat has no end
            return
        seen.add(id(node))
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                collect(node[key])

    if not isinstance(value, dict | list) or not value or random.random() < 0.03:
        return odd(random)
    collect(value)
    node, key = random.choice(places)
    if isinstance(node[key], torch.Tensor) and random.random() < 0.7:
        tensor, changes = node[key], (torch.Tensor.double, torch.Tensor.long, torch.Tensor.bool, torch.Tensor.to_sparse)
        more = (
            lambda x: x * float("nan"),
            lambda x: x[..., :1],
            lambda x: x[None],
            lambda x: x.flatten(),
            lambda x: x * 1e38,
        )
        node[key] = random.choice((*changes, *more))(tensor)
        return value
    match random.randrange(8):
        case 0:
            del node[key]
        case 1:
            other, place = random.choice(places)
            node[key] = (
                json.loads(json.dumps(other[place], default=str)) if place in other or isinstance(other, list) else None
            )
        case 2 if isinstance(node, dict):
            node[str(odd(random))[:300]] = node.pop(key)
        case 3:
            node[key] = str(node[key]) if not isinstance(node[key], str) else [node[key]]
        case 4 if isinstance(node, list):
            node.extend([node[key]] * random.choice((1, 3)))
        case _:
            node[key] = odd(random)
    return value


def _json(content: bytes, random: Random) -> bytes:
    text = json.dumps(break_tree(json.loads(content), random), default=str)
    return text.replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000).encode()


def _yaml(content: bytes, random: Random) -> bytes:
    if random.random() < 0.2:
        return break_text(content, random)
    text: str = yaml.safe_dump(break_tree(yaml.safe_load(content), random), allow_unicode=True, sort_keys=False)
    if random.random() < 0.2:
        lines = text.split("\n")
        at, value = random.randrange(len(lines)), random.choice(YAMLS)
        lines[at] = value if random.random() < 0.3 else lines[at].partition(":")[0] + ": " + value
        text = "\n".join(lines)
    return text.replace(DEEP, "[" * 3000 + "]" * 3000).encode()


def _npy(content: bytes, random: Random) -> bytes:
    (length,) = struct.unpack("<H", content[8:10])
    header = content[10 : 10 + length].decode()
    shapes = (
        "()",
        "(0,)",
        "(-1, 5)",
        "(2**40,)",
        "(1e5,)",
        f"({10**30},)",
        "(3,) * 9**9",
        "[2, 2]",
        "None",
        "(4, 224)",
        "(True,)",
    )
    types = (
        "'|O'",
        "'<f2'",
        "'>f8'",
        "'<c16'",
        "'|S5'",
        "'|V8'",
        "'<M8[s]'",
        "[('a', '<f4')]",
        "'<f16'",
        "'f99'",
        "5",
        "'<u8'",
    )
    match random.randrange(6):
        case 0:
            header = re.sub(r"\(.*\)", random.choice(shapes), header)
        case 1:
            header = re.sub(r"'[<>|=][^']*'", random.choice(types), header)
        case 2:
            header = header.replace("False", random.choice(("True", "2", "__import__('os').system('true')")))
        case 3:
            header = random.choice(("{}", "[" * 5000, "{" * 90, "x", "", "{'descr': '<f4'}", "(" * 9000))
        case 4:
            return content[:6] + random.choice((b"\1\0", b"\2\0", b"\3\0", b"\4\0", b"\xff\xff")) + content[8:]
        case _:
            header = break_text(header.encode(), random).decode()
    return content[:8] + struct.pack("<H", len(header.encode()) % 65536) + header.encode() + content[10 + length :]


def _zip(content: bytes, random: Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(each.filename, archive.read(each)) for each in archive.infolist()]
    at = random.randrange(len(members))
    name, data = members[at]
    match random.randrange(6):
        case 0:
            del members[at]
        case 1:
            members.append((random.choice(("../x", "x" * 70000, name, "a.npy", "é")), data))
        case 2:
            members[at] = name, random.choice(EVIL)
        case _:
            members[at] = name, mutate(name, data, random)
    with zipfile.ZipFile(
        out := io.BytesIO(), "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    ) as archive:
        for name, data in members:
            archive.writestr(name[:60000], data)
    return out.getvalue()


def _pickle(content: bytes, random: Random) -> bytes:
    if random.random() < 0.6:
        held = break_tree(torch.load(io.BytesIO(content), weights_only=True), random)
        torch.save(held, out := io.BytesIO(), _use_new_zipfile_serialization=content[:2] == b"PK")
        return out.getvalue()
    if zipfile.is_zipfile(io.BytesIO(content)):
        return _zip(content, random)
    return random.choice(EVIL) if random.random() < 0.05 else break_bytes(content, random)


def _safetensors(content: bytes, random: Random) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    header = _json(content[8 : 8 + length], random)
    said = random.choice((len(header), len(header), len(header), 2**63, 0))
    return struct.pack("<Q", said) + header + content[8 + length :]


def _png(content: bytes, random: Random) -> bytes:
    chunks, at = [], 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    number = random.randrange(len(chunks))
    kind, data = chunks[number]
    match random.randrange(6):
        case 0:
            del chunks[number]
        case 1:
            chunks[number:number] = [
                (random.choice((b"tRNS", b"eXIf", b"iCCP", b"zTXt", b"acTL", b"PLTE", kind)), random.randbytes(9))
            ]
        case 2 if kind == b"IHDR":
            sides = (0, 1, 3, 2**15, 2**31 - 1, 2**31)
            depth, colour = random.choice((1, 2, 4, 8, 16, 99)), random.choice((0, 2, 3, 4, 6, 7))
            data = struct.pack(">IIBB", random.choice(sides), random.choice(sides), depth, colour) + data[10:]
            chunks[number] = kind, data
        case 3 if kind == b"IDAT":
            chunks[number] = kind, zlib.compress(break_bytes(zlib.decompress(data), random))
        case _:
            chunks[number] = kind, break_bytes(data, random)
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return content[:8] + b"".join(parts)


def _tar(content: bytes, random: Random) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        members = [(each, (file.read() if (file := tar.extractfile(each)) else b"")) for each in tar]
    at = random.randrange(len(members))
    member, data = members[at]
    if random.random() < 0.5:
        data = mutate(member.name, data, random)
        member.size = len(data)
    match random.randrange(8):
        case 0:
            member.name = random.choice(
                (f"../{member.name}", f"/{member.name}", str(odd(random))[:9000], f"{member.name}.x", "a.cls")
            )
        case 1:
            member.type, member.linkname = random.choice(b"0123456789gxLKVSMD").to_bytes(1, "big"), random.choice(TEXTS)
        case 2:
            member.size = random.choice((0, 1, 2**33 - 1, 2**60))
        case 3:
            members.insert(0, members.pop(at))
        case 4:
            members.append(members[random.randrange(len(members))])
        case 5:
            member.pax_headers = {
                random.choice(("size", "path", "GNU.sparse.map", "GNU.sparse.major", "mtime")): str(odd(random))[:5000]
            }
    members[min(at, len(members) - 1)] = member, data
    form = random.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    out = b""
    for member, data in members:
        out += member.tobuf(form, errors="surrogateescape") + data + bytes(-len(data) % 512)
    return out + bytes(random.choice((1024, 1024, 0, 512, 10240)))


STRUCTURED: dict[str, Callable[[bytes, Random], bytes]] = {
    **dict.fromkeys((".csv", ".txt", ".cls"), break_text),
    ".json": _json,
    ".yaml": _yaml,
    ".npy": _npy,
    **dict.fromkeys((".npz",), _zip),
    **dict.fromkeys((".pt", ".pth", ".ckpt"), _pickle),
    ".safetensors": _safetensors,
    ".png": _png,
    ".tar": _tar,
}
"""What breaks files of a suffix by what they say."""
