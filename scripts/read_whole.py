"""The whole vectors of docs/WIRE.md, and the hash that tells whether their bits are right. Used by `read_frame.py`."""
import math
import struct

from read_streams import Frequencies, PlainBits, RangeCoder, f16, f32, levels, log2, single

SCHEMES = ["rotated", "eden", "qsgd", "terngrad", "sign", "low-rank", "common"]
CENTROIDS = {
    1: [0.7978846],
    2: [0.45278, 1.5104176],
    3: [0.2450942, 0.7560053, 1.3439093, 2.1519457],
    4: [0.128395, 0.3880483, 0.6567591, 0.9423405, 1.2562312, 1.6180464, 2.0690172, 2.7325896],
}


def whole(scheme, body, n, model):
    """All n coordinates, in order."""
    result = by_scheme(scheme, body, n, model)
    assert len(result) == n and all(map(math.isfinite, result))
    return result


def by_scheme(scheme, body, n, model):
    if scheme == "rotated":
        return rotated(body, n)
    if scheme == "eden":
        return eden(body, n)
    if scheme == "qsgd":
        return by_norm(body, [min(512, n - start) for start in range(0, n, 512)], 127)
    if scheme == "terngrad":
        return by_norm(body, [length for length, _ in model], 1)
    if scheme == "sign":
        return signs(body, model)
    return low_rank(body, model) if scheme == "low-rank" else common(body, n)


def read_seed(stream):
    return stream.bits(16) | stream.bits(16) << 16 | stream.bits(16) << 32 | stream.bits(16) << 48


def read_scale(code):
    assert code <= 0xFEFF, "a scale that is not finite"
    return f32(code << 15)


def random(seed, number):
    z = (seed + (number + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) % 2**64
    return z ^ z >> 31


def blocks(n, b):
    start = 0
    while start < n:
        length = 1 << min(b, log2(n - start))
        yield start, length
        start += length


def rotate_back(seed, start, x, scale):
    h = 1
    while h < len(x):
        for i in range(len(x)):
            if i & h == 0:
                x[i], x[i + h] = single(x[i] + x[i + h]), single(x[i] - x[i + h])
        h *= 2
    for i in range(len(x)):
        x[i] = single(x[i] * scale)
        j = start + i
        if random(seed, j // 64) >> j % 64 & 1:
            x[i] = -x[i]
    return x


def rotated(body, n):
    stream = RangeCoder(body)
    seed = read_seed(stream)
    b, plain, most = stream.bits(4), stream.bits(4), stream.bits(7)
    assert b <= 14 and plain <= 8 and most <= 126
    classes, scales = Frequencies(24), Frequencies(256)
    of_levels = [[Frequencies(2 * most + 2) for _ in range(2)] for _ in range(24)]
    result = []
    for start, length in blocks(n, b):
        of_class = classes.symbol(stream)
        if of_class == 0:
            result += [0.0] * length
            continue
        upper = scales.symbol(stream)
        scale = read_scale(upper << 8 | stream.bits(8))
        state, x = 0, []
        for _ in range(length):
            grid = state >> 1
            level = of_levels[of_class][grid].symbol(stream) - most - 1
            if plain > 0:
                level = level << plain | stream.bits(plain)
            sign = (level > 0) - (level < 0)
            x.append(float(2 * level - sign * grid))
            state = [[0, 2], [2, 0], [1, 3], [3, 1]][state][level & 1]
        result += rotate_back(seed, start, x, scale)
    stream.end()
    return result


def eden(body, n):
    stream = PlainBits(body)
    seed = read_seed(stream)
    w = stream.bits(4)
    assert 1 <= w <= 4
    centroids = [single(c) for c in CENTROIDS[w]]
    centroids += [-c for c in centroids]
    result = []
    for start, length in blocks(n, 13):
        scale = read_scale(stream.bits(16))
        if scale == 0:
            result += [0.0] * length
        else:
            result += rotate_back(seed, start, [centroids[stream.bits(w)] for _ in range(length)], scale)
    stream.end()
    return result


def by_norm(body, buckets, most):
    """QSGD and TernGrad, which differ in their buckets and in how many levels there may be."""
    stream = RangeCoder(body)
    s = stream.bits(8)
    assert 1 <= s <= most
    frequencies, result = Frequencies(2 * s + 1), []
    for length in buckets:
        norm = read_scale(stream.bits(16))
        if norm == 0:
            result += [0.0] * length
        else:
            step = single(norm / s)
            result += [single((frequencies.symbol(stream) - s) * step) for _ in range(length)]
    stream.end()
    return result


def signs(body, model):
    stream, result = PlainBits(body), []
    for length, _ in model:
        s = read_scale(stream.bits(16))
        result += [0.0] * length if s == 0 else [-s if flag else s for flag in stream.flags(length)]
    stream.end()
    return result


def low_rank(body, model):
    stream, result = PlainBits(body), []

    def half():
        return f16(stream.bits(16))

    def halves(count):
        s = read_scale(stream.bits(16))
        return [single(half() * s) for _ in range(count)] if s != 0 else None

    rank = stream.bits(7)
    assert 1 <= rank <= 64
    for length, row in model:
        rows = length // row
        r = min(rank, rows, row)
        if length % row == 0 and r * (rows + row) < length:
            right = halves(r * row)
            if right is None:
                result += [0.0] * length
                continue
            for _ in range(rows):
                left = [half() for _ in range(r)]
                for j in range(row):
                    total = 0.0
                    for c in range(r):
                        total = single(total + single(left[c] * right[c * row + j]))
                    result.append(total)
        else:
            result += halves(length) or [0.0] * length
    stream.end()
    return result


def common(body, n):
    exponent, bits, coded = body[0] - 256 if body[0] > 127 else body[0], body[1] & 127, body[1] >> 7
    assert -40 <= exponent <= 15 and 2 <= bits <= 8
    stream = RangeCoder(body[2:]) if coded else PlainBits(body[2:])
    if coded:
        result = [s - (1 << bits - 1) for s in levels(stream, n, 1 << bits)]
    else:
        codes = [stream.bits(bits) for _ in range(n)]
        result = [code - (1 << bits) if code >> bits - 1 else code for code in codes]
    stream.end()
    return [level * 2.0**exponent for level in result]


# What follows is BLAKE3, which Python does not bring along.

IV = struct.unpack(">8I", bytes.fromhex("6a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd19"))
WORDS = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
MIXED = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)]
MIXED += [(0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]


def compress(chaining, block, counter, flags):
    m = struct.unpack("<16I", block.ljust(64, b"\0"))
    v = [*chaining, *IV[:4], counter % 2**32, counter >> 32, len(block), flags]

    def half_mix(a, b, c, d, word, first, second):
        v[a] = (v[a] + v[b] + word) % 2**32
        v[d] = turned(v[d] ^ v[a], first)
        v[c] = (v[c] + v[d]) % 2**32
        v[b] = turned(v[b] ^ v[c], second)

    for _ in range(7):
        for i, places in enumerate(MIXED):
            half_mix(*places, m[2 * i], 16, 12)
            half_mix(*places, m[2 * i + 1], 8, 7)
        m = [m[i] for i in WORDS]
    return [v[i] ^ v[i + 8] for i in range(8)]


def turned(x, by):
    return (x >> by | x << 32 - by) % 2**32


def blake3(data):
    """The 32 bytes of the unkeyed hash."""

    def chaining(data, chunk, root):
        if len(data) <= 1024:
            value, last = IV, max(0, len(data) - 1) // 64
            for i in range(last + 1):
                flags = (1 if i == 0 else 0) | (2 | root if i == last else 0)
                value = compress(value, data[64 * i : 64 * i + 64], chunk, flags)
            return value
        left = 1 << log2((len(data) - 1) // 1024)
        halves = chaining(data[: 1024 * left], chunk, 0) + chaining(data[1024 * left :], chunk + left, 0)
        return compress(IV, struct.pack("<16I", *halves), 0, 4 | root)

    return struct.pack("<8I", *chaining(data, 0, 8))


def digest(values):
    """As the page's table of whole vectors has it."""
    # Adding 0 makes 0 of -0.
    return blake3(struct.pack(f"<{len(values)}f", *[x + 0.0 for x in values])).hex()[:16]
