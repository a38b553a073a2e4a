"""Ways to damage a file, each a function of its bytes and a seeded generator: what a bad disk, cable, editor or copy does to one."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable

import numpy as np

Mutator = Callable[[bytes, np.random.Generator], bytes]

_HEADER = 512  # bytes in which most formats keep their sizes
_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c6360000000020001e221bc330000000049454e44ae426082"
)
_FOREIGN = (
    _PNG,
    gzip.compress(b"a,b\n1,2\n", mtime=0),
    b"\x89HDF\r\n\x1a\n" + bytes(88),
    b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    b"PAR1" + bytes(40) + b"PAR1",
    b"PK\x05\x06" + bytes(18),
    b"\x93NUMPY\x01\x00\x46\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(79) + b"\n\x80\x04N.",
    b'{"a": [1, 2, {"b": null}]}',
    b"II*\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    "\ufeffa;b\r\n1;ä\r\n".encode("utf-16"),
    b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\xff\xd9",
)
_EXTREMES = (0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_NUMBERS = (b"NaN", b"-1", b"1e400", b"99999999999999999999", b"9" * 6000, b"inf", b"0", b"1_0", b"true", b"null", b"''", b"\xd9\xa3")
_PIECES = (
    b"\0",
    b'"',
    b"'",
    b"\xff\xfe",
    "🧬é".encode(),
    b",,,",
    b"\t",
    b"\r",
    b"\n\n",
    b"[" * 100_000,
    b"{" * 3000,
    b"a" * 200_000,
    b"]",
    b"</a>",
)


def _at(content: bytes, rng: np.random.Generator, below: int | None = None) -> int:
    return int(rng.integers(0, max(1, min(len(content), below or len(content)))))


def _over(content: bytes, start: int, piece: bytes) -> bytes:
    return content[:start] + piece[: len(content) - start] + content[start + len(piece) :]


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: _at(content, rng)]


def cut_near_the_end(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: -1 - _at(content, rng, 32)]


def _flip(content: bytes, places: np.ndarray, rng: np.random.Generator) -> bytes:
    out = bytearray(content)
    for place in places:
        out[place] ^= 1 << int(rng.integers(0, 8))
    return bytes(out)


def flip_a_bit(content: bytes, rng: np.random.Generator) -> bytes:
    return _flip(content, rng.integers(0, len(content), 1), rng)


def flip_many_bits(content: bytes, rng: np.random.Generator) -> bytes:
    return _flip(content, rng.integers(0, len(content), 2 + len(content) // 200), rng)


def flip_in_the_header(content: bytes, rng: np.random.Generator) -> bytes:
    return _flip(content, rng.integers(0, min(_HEADER, len(content)), 1 + int(rng.integers(0, 3))), rng)


def flip_in_the_middle(content: bytes, rng: np.random.Generator) -> bytes:
    third = len(content) // 3
    return _flip(content, third + rng.integers(0, max(third, 1), 2), rng)


def swap_two_blocks(content: bytes, rng: np.random.Generator) -> bytes:
    size = max(1, min(4096, len(content) // int(rng.integers(3, 30))))
    first, second = sorted(rng.integers(0, max(1, len(content) - size), 2).tolist())
    second = max(second, first + size)
    a, b = content[first : first + size], content[second : second + size]
    return content[:first] + b + content[first + size : second] + a + content[second + size :]


def overwrite_a_block(content: bytes, rng: np.random.Generator) -> bytes:
    size = int(rng.integers(1, max(2, min(4096, len(content) // 2))))
    filling = (bytes(size), b"\xff" * size, rng.bytes(size))[int(rng.integers(0, 3))]
    return _over(content, _at(content, rng), filling)


def drop_a_block(content: bytes, rng: np.random.Generator) -> bytes:
    start = _at(content, rng)
    return content[:start] + content[start + int(rng.integers(1, max(2, len(content) // 4))) :]


def empty(content: bytes, rng: np.random.Generator) -> bytes:
    return b""


def double(content: bytes, rng: np.random.Generator) -> bytes:
    return content + content


def another_format(content: bytes, rng: np.random.Generator) -> bytes:
    return _FOREIGN[int(rng.integers(0, len(_FOREIGN)))]


def extreme_number(content: bytes, rng: np.random.Generator) -> bytes:
    """Put a whole number of 1 to 8 bytes, of either byte order, to an extreme of its range, mostly where headers are."""
    code = "BHIQ"[int(rng.integers(0, 4))]
    width = struct.calcsize(code)
    value = _EXTREMES[int(rng.integers(0, len(_EXTREMES)))] % (1 << 8 * width)
    start = _at(content, rng, _HEADER if rng.random() < 0.6 else None) // width * width
    return _over(content, start, struct.pack("<>"[int(rng.integers(0, 2))] + code, value))


def another_digit(content: bytes, rng: np.random.Generator) -> bytes:
    """Change what stands for a number in a text: one digit, or the whole of it to something that is hard to read as one."""
    digits = [i for i, c in enumerate(content) if 48 <= c < 58]
    if not digits:
        return flip_a_bit(content, rng)
    start = digits[int(rng.integers(0, len(digits)))]
    if rng.random() < 0.4:
        return content[:start] + bytes([48 + (content[start] - 48 + int(rng.integers(1, 10))) % 10]) + content[start + 1 :]
    end = start
    while end < len(content) and 48 <= content[end] < 58:
        end += 1
    return content[:start] + _NUMBERS[int(rng.integers(0, len(_NUMBERS)))] + content[end:]


def insert_a_piece(content: bytes, rng: np.random.Generator) -> bytes:
    start = _at(content, rng)
    return content[:start] + _PIECES[int(rng.integers(0, len(_PIECES)))] + content[start:]


def lines(content: bytes, rng: np.random.Generator) -> bytes:
    """Double, drop or move a line of a text."""
    every = content.splitlines(keepends=True) or [b""]
    line = every[_at(b"x" * len(every), rng)]
    kind = int(rng.integers(0, 3))
    if kind:
        every.remove(line)
    if kind != 1:
        every.insert(_at(b"x" * (len(every) + 1), rng), line)
    return b"".join(every)


BINARY: tuple[Mutator, ...] = (
    cut, cut_near_the_end, flip_a_bit, flip_many_bits, flip_in_the_header, flip_in_the_middle, swap_two_blocks, overwrite_a_block,
    drop_a_block, empty, double, another_format, extreme_number, extreme_number, extreme_number,
)  # fmt: skip
TEXT: tuple[Mutator, ...] = (
    cut, flip_a_bit, flip_many_bits, swap_two_blocks, overwrite_a_block, drop_a_block, empty, double, another_format, another_digit,
    another_digit, insert_a_piece, insert_a_piece, lines, lines,
)  # fmt: skip


def mutate(content: bytes, seed: int, text: bool = False) -> tuple[str, bytes]:
    """Return the name of a way to damage and the damaged bytes; the same for the same seed.

    Seeds go through the ways in turn, so that a few of them already cover many; what comes out differs from `content`.
    """
    ways = TEXT if text else BINARY
    for again in range(100):
        rng = np.random.default_rng([seed, again])
        way = ways[(seed * 7 + again) % len(ways)]  # 7 has no divisor in common with the number of ways
        damaged = way(content, rng)
        if damaged != content:
            return way.__name__, damaged
    raise AssertionError("a hundred ways left the file as it was")
