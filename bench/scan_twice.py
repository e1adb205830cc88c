"""Scan the bench bucket twice and print the process's peak memory in bytes.

`python -m bench.scan_twice URL`, with the environment of `product.configure`. The documented
strings are off.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.product import Product
from scanning import wiring


def main() -> None:
    wiring.ensure_django()
    product = Product(sys.argv[1])
    product.strings = False
    product.scan()
    product.scan()
    print(peak_bytes())


def peak_bytes() -> int:
    """Linux's high-water mark of this program; that of getrusage counts the parent's as well."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:", 1)[1].split(None, 1)[0]) * 1024


if __name__ == "__main__":
    main()
