"""The Lua scripts in `lua/`: what has to happen all at once, or not at all.

Each says at its top what it is for, its KEYS, its arguments and what it returns. Every key that it
touches is among its KEYS; where a key's name depends on what Redis holds, or on its clock, the
adapter reads that first. The arguments are one map, `cmsgpack.unpack(ARGV[1])`; None is nil there.
A line ``-- include NAME.lua`` puts `lua/shared/NAME.lua` before the script.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DIRECTORY = Path(__file__).parent / "lua"
_INCLUDE = re.compile(r"^-- include (\w+\.lua)$", re.MULTILINE)


@cache
def source(name: str) -> str:
    """Read a script by its name, with what it includes."""
    script = (DIRECTORY / f"{name}.lua").read_text(encoding="utf-8")
    shared = DIRECTORY / "shared"
    included = [(shared / file).read_text(encoding="utf-8") for file in _INCLUDE.findall(script)]
    return "\n".join([*included, script])


def packed(args: Mapping[str, Any] | Sequence[str]) -> bytes:
    """Pack a script's arguments: texts as the connection would encode them, bytes as texts.

    The msgpack of Redis is older than a type for bytes.
    """
    done: bytes = msgpack.packb(args, unicode_errors="surrogateescape", use_bin_type=False)
    return done
