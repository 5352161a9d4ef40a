#!/usr/bin/env python3
"""Reads frames as docs/WIRE.md describes them, in plain Python and from that page alone.

`scripts/read_frame.py` reads the golden files of both versions and checks them as the page says: so what is written
there is enough to write a decoder. `scripts/read_frame.py FILE LEN,ROW ...` prints the non-zeros of one frame of a
model with these tensors, or all coordinates of a whole vector. Needs nothing but Python 3.9.
"""
import math
import re
import struct
import sys
from pathlib import Path

# The modules beside this file leave no __pycache__ in the repository.
sys.dont_write_bytecode = True

from read_streams import Paired, PlainBits, RangeCoder, f16, f32, levels, log2, single
from read_whole import SCHEMES, digest, random, whole

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "common/codec/tests/golden"
KINDS = ["f32", "f16", "int8", "ternary", "integers", "whole", "pruned", "grown"]
LAYOUTS = ["dense", "raw", "rice", "enumerative", "adaptive"]
WIDTHS = {"f32": 32, "f16": 16, "int8": 8, "ternary": 1, "pruned": 0, "grown": 0, "announced": 0}


class Learning:
    def __init__(self, p=0.5, seen=0):
        self.slow = self.fast = int(min(max(p * 65536.0, 32.0), 65504.0))
        self.seen = seen

    def code(self, stream):
        yes = stream.choice(3 * self.slow + self.fast)
        rate = 65536 // (2 * self.seen + 3)
        self.slow = self.toward(self.slow, yes, rate)
        self.fast = self.toward(self.fast, yes, max(rate, 1024))
        self.seen = min(self.seen + 1, 255)
        return yes

    @staticmethod
    def toward(p, yes, rate):
        return p + ((65504 - p) * rate + 32767 >> 15) if yes else p + ((32 - p) * rate >> 15)


class Tree:
    def __init__(self, d, chances=None, weight=0):
        self.d, self.nodes = d, [Learning() for _ in range(1 << d)]
        if chances:
            s = [0.0] * (1 << d) + list(chances)
            for node in range((1 << d) - 1, 0, -1):
                s[node] = s[2 * node] + s[2 * node + 1]
                if s[node] > 1e-200:
                    self.nodes[node] = Learning(s[2 * node + 1] / s[node], weight)

    def code(self, stream):
        node = 1
        for _ in range(self.d):
            node = 2 * node + self.nodes[node].code(stream)
        return node - (1 << self.d)


class Stationary:
    def __init__(self, p, seen):
        self.all = seen << 8
        self.yes = int(min(max(p * self.all, 1.0), self.all - 1.0))
        self.estimate()

    def estimate(self):
        self.q = min(max((self.yes << 18) // self.all, 128), 262016)

    def code(self, stream):
        result = stream.choice(self.q)
        self.yes += 256 if result else 0
        self.all += 256
        if self.all < 65536 or self.all % 4096 < 256:
            self.estimate()
        if self.all > 2**30:
            self.yes, self.all = self.yes >> 1, self.all >> 1
        return result


class Magnitude:
    def __init__(self, low, usual, classes, first, second):
        self.low, self.usual, self.classes = low, usual, classes
        self.next = [[first(c), second(c), second(c)] for c in range(32)]

    @classmethod
    def at(cls, m):
        return cls(log2(m), Tree(3), Tree(5), lambda c: Learning(), lambda c: Learning())

    @classmethod
    def for_gaps(cls, k, length):
        low = log2(max(1, (length // k) >> 4))
        stay = 1.0 - k / length
        power = [stay]
        for _ in range(32):
            power.append(power[-1] * power[-1])
        tail = lambda c: 1.0 if c == 0 else power[c] / stay
        chance = [tail(c) - tail(c + 1) for c in range(32)]
        u = [0.0] * 8
        for c in range(32):
            if low <= c < low + 7:
                u[c - low] += chance[c]
                chance[c] = 0.0
            else:
                u[7] += chance[c]
        guess = lambda i: Learning(power[i] / (1.0 + power[i]), 32)
        first = lambda c: guess(c - 1) if c >= 1 else None
        second = lambda c: guess(c - 2) if c >= 2 else None
        return cls(low, Tree(3, u, 32), Tree(5, chance, 32), first, second)

    def code(self, stream):
        symbol = self.usual.code(stream)
        c = (self.low + symbol) % 32 if symbol < 7 else self.classes.code(stream)
        if c == 0:
            return 1
        first = self.next[c][0].code(stream)
        if c == 1:
            return 2 + first
        second = self.next[c][1 + first].code(stream)
        return (4 + 2 * first + second) << (c - 2) | stream.long(c - 2)


class PlainCounts:
    def count(self, stream, length, k_left, before):
        u = stream.unary()
        c = (1 << u | stream.bits(u)) - 1
        return (1 << c | stream.long(c)) - 1


class Raw(PlainCounts):
    def positions(self, stream, length, row, k):
        if 32 * k < length:
            return [stream.long(32) for _ in range(k)]
        return [i for i in range(length) if stream.bits(1)]


class Rice(PlainCounts):
    def positions(self, stream, length, row, k):
        b = min(max(log2(length // k) + stream.bits(2) - 2, 0), 31)
        start, result = 0, []
        for _ in range(k):
            start += stream.unary() << b | stream.long(b)
            result.append(start)
            start += 1
        return result


class LearntCounts:
    def __init__(self):
        self.any = [Learning(p, 4) for p in (0.5, 0.75, 0.875, 0.96875)]
        self.classes = Tree(6, [2.0 ** -abs(i - 32) for i in range(64)], 4)

    def count(self, stream, length, k_left, before):
        even = k_left * length // before
        if not self.any[min(3, even.bit_length())].code(stream):
            return 0
        middle = 32 - log2(max(1, even))
        c = (self.classes.code(stream) - middle) % 32
        return 1 << c | stream.long(c)


class Enumerative(LearntCounts):
    def positions(self, stream, length, row, k):
        p = k / length
        x = 1.0 - p
        for _ in range(6):
            x = x * x
        chance = [x]
        for i in range(64):
            chance.append(chance[i] * (64 - i) / (i + 1) * p / (1.0 - p))
        more, t = [None] * 64, 0.0
        for i in range(63, -1, -1):
            t = t + chance[i + 1]
            a = t + chance[i]
            more[i] = Stationary(t / a, 32) if a > 1e-200 else Stationary(0.5, 2)
        left, result = k, []
        for start in range(0, length, 64):
            width = min(64, length - start)
            least, most = max(0, left - (length - start - width)), min(left, width)
            m = least
            while m < most and more[m].code(stream):
                m += 1
            if m == 0:
                if left == 0:
                    break
                continue
            rank = stream.uniform(math.comb(width, m))
            left -= m
            found = []
            for i in range(m, 0, -1):
                q = max(q for q in range(width) if math.comb(q, i) <= rank)
                rank -= math.comb(q, i)
                found.append(start + q)
            result += reversed(found)
        assert left == 0
        return result


def tables():
    step = 2.0
    for _ in range(8):
        step = math.sqrt(step)
    power, half = 1.0, []
    for _ in range(3073):
        half.append(power / (1.0 + power))
        power = power * step
    as_p = lambda share: max(2**7, min(2**18 - 2**7, int(share * 2.0**18)))
    squash = {x: as_p(half[x]) if x >= 0 else as_p(1.0 - half[-x]) for x in range(-3072, 3073)}
    stretch, x = [], -3072
    for q in range(2**16):
        while x < 3072 and squash[x + 1] <= (2 * q + 1) << 1:
            x += 1
        stretch.append(x)
    return stretch, lambda x: squash[max(-3072, min(3072, x))]


STRETCH, SQUASH = tables()


class Guess:
    def __init__(self, p, seen):
        self.p, self.seen = min(p, 2**22 - 1), seen

    def learn(self, yes):
        target = 2**22 - 1 if yes else 0
        rate = 2**17 // (2 * self.seen + 3)
        self.p += ((target - self.p) * rate) >> 16
        self.seen = min(self.seen + 1, 255)


def mixed_choice(stream, weights, guesses, last):
    inputs = [STRETCH[guess.p >> 6] for guess in guesses] + [last]
    p = SQUASH(sum(x * w for x, w in zip(inputs, weights)) >> 16)
    yes = stream.choice(p)
    error = (65536 if yes else 0) - (p >> 2)
    for i in range(4):
        weights[i] = max(-(2**20), min(2**20, weights[i] + ((inputs[i] * error) >> 15)))
    for guess in guesses:
        guess.learn(yes)
    return yes


class Level:
    def __init__(self, p, width, weights=(0, 1, 2)):
        self.p, self.width, self.of_row = p, width, weights[1]
        self.columns = [Guess(p, weights[0]) for _ in range(width)]
        self.near = [Guess(p, weights[2]) for _ in range(32)]
        self.before, self.set = 0, set()

    def begin_row(self):
        self.row = Guess(self.p, self.of_row)

    def passed(self, j, yes):
        self.before = (2 * self.before) % 4 + yes
        if yes:
            self.set.add(j)

    def choice(self, stream, j, column, weights, last=1024):
        above = j - self.width
        bits = [above + i - 1 in self.set for i in range(3)] if j > self.width else [0, 0, 0]
        near = self.near[self.before + 4 * (bits[0] + 2 * bits[1] + 4 * bits[2])]
        yes = mixed_choice(stream, weights, [self.columns[column], self.row, near], last)
        self.passed(j, yes)
        return yes


def any_of(p, n):
    none, power = 1 << 22, (1 << 22) - p
    while n > 0:
        if n % 2 == 1:
            none = none * power >> 22
        power = power * power >> 22
        n //= 2
    return (1 << 22) - none


def share(p, all_):
    return min((p << 22) // max(1, all_), 2**22 - 1)


def mixer(guess, expected):
    start = [30000, 26000, 24000]
    constant = ((STRETCH[expected >> 6] << 16) - STRETCH[guess >> 6] * sum(start)) >> 10
    return [max(-(2**20), min(2**20, w)) for w in start + [constant]]


def mixed(stream, length, row, k):
    row = min(row, length)
    density = (k << 22) // length
    most = max(1, min(64, 2**21 // max(1, density)))
    per_row = -(-row // most)
    width = -(-row // per_row)
    per_row = -(-row // width)
    anything = any_of(density, width)
    within = share(density, anything)
    blocks, of_blocks = Level(anything, per_row), mixer(anything, anything)
    cells = Level(within, row)
    of_cells = [mixer(within, density)]
    of_cells += [mixer(within, share(density, any_of(density, left))) for left in range(1, width + 1)]
    result = []
    for number, r in enumerate(range(0, length, row)):
        e = min(length, r + row)
        blocks.begin_row()
        cells.begin_row()
        for b, f in enumerate(range(r, e, width)):
            t = min(e, f + width)
            if not blocks.choice(stream, number * per_row + b, b, of_blocks):
                cells.before = 0
                continue
            empty = True
            for j in range(f, t):
                if empty and j == t - 1:
                    cells.passed(j, True)
                    yes = True
                else:
                    yes = cells.choice(stream, j, j - r, of_cells[t - j if empty else 0])
                if yes:
                    result.append(j)
                    empty = False
                    if len(result) == k:
                        return result
    raise ValueError("the coordinates end before all are found")


def share_out(counts):
    total = max(1, sum(counts))
    frequency = [1 + count * (4096 - len(counts)) // total for count in counts]
    frequency[frequency.index(max(frequency))] += 4096 - sum(frequency)
    return frequency


def many_gaps(stream, length, k):
    scale = log2(max(1, (length // k) >> 6))
    stay = 1.0 - k / length
    for _ in range(scale):
        stay = stay * stay
    counts, at_least = [], 1.0
    while len(counts) < 63 and at_least > 1.0 / 2048.0:
        if len(counts) >= 8 and len(counts) % 4 == 0:
            stay = stay * stay
        more = at_least * stay
        counts.append(int((at_least - more) * 1024.0))
        at_least = more
    step = len(counts)
    counts.append(int(at_least * 1024.0))
    frequency = share_out(counts)
    states = [stream.long(32) for _ in range(4)]
    result, start, number = [], 0, 0
    while len(result) < k:
        state, s = states[number % 4], 0
        place = state % 4096
        while place >= frequency[s]:
            place -= frequency[s]
            s += 1
        state = frequency[s] * (state >> 12) + place
        if state < 1 << 16:
            state = state << 16 | stream.bits(16)
        states[number % 4] = state
        octave = max(s // 4, 1) - 1
        start += (s - 4 * octave) << octave + scale
        counts[s] += 1
        if s < step:
            start += stream.long(octave + scale)
            result.append(start)
            start += 1
        number += 1
        if number % 1024 == 0:
            if sum(counts) > 16384:
                counts = [count // 2 for count in counts]
            frequency = share_out(counts)
    assert states == [1 << 16] * 4
    return result


class Adaptive(LearntCounts):
    def __init__(self, version):
        super().__init__()
        self.is_mixed, self.version = Learning(), version

    def positions(self, stream, length, row, k):
        if k >= 32 and self.is_mixed.code(stream):
            return mixed(stream, length, row, k)
        if k >= 4096 and self.version > 2:
            return many_gaps(stream, length, k)
        magnitudes = [Magnitude.for_gaps(k, length), Magnitude.for_gaps(k, length)]
        short = length // (4 * max(1, min(k, length // 4)))
        context, start, result = 0, 0, []
        for _ in range(k):
            gap = magnitudes[context].code(stream)
            result.append(start + gap - 1)
            context = 1 if gap <= short else 0
            start += gap
        return result


def integers(stream, k):
    divisor = stream.number()
    if stream.bits(1):
        entries, value = stream.bits(8) + 1, []
        for i in range(entries):
            value.append((value[-1] if value else 0) + stream.number())
        tree = Tree((entries - 1).bit_length())
        magnitudes = [value[tree.code(stream)] for _ in range(k)]
    else:
        low = stream.number()
        magnitude = Magnitude.at(low)
        magnitudes = [magnitude.code(stream) for _ in range(k)]
    return [divisor * m * (-1 if sign else 1) for m, sign in zip(magnitudes, stream.flags(k))]


def by_codebook(stream, k, b):
    entries = [stream.bits(15) for _ in range(stream.bits(b - 1) + 1)]
    if len(entries) == 1:
        places = [0] * k
    elif isinstance(stream, RangeCoder):
        places = levels(stream, k, len(entries))
    else:
        places = [stream.bits((len(entries) - 1).bit_length()) for _ in range(k)]
    return [entries[place] | sign << 15 for place, sign in zip(places, stream.flags(k))]


def value(kind, code, scale):
    if kind == "f32":
        return f32(code)
    if kind in ("f16", "codebook"):
        return f16(code)
    if kind == "int8":
        return single((code - 256 if code > 127 else code) * scale)
    return (-scale if code else scale) if kind == "ternary" else code


def varint(frame, at):
    result = shift = 0
    while True:
        byte = frame[at]
        at += 1
        result |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return result, at


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def read(frame, model):
    """Kind and {coordinate: value} of a frame for tensors (len, row); for masks every value is None."""
    assert frame[0] == 0xD7 and frame[1] in (2, 3) and frame[2] < 128, "not a frame, or of an unknown version"
    assert crc32c(frame[:-4]) == int.from_bytes(frame[-4:], "little"), "checksum"
    kind, layout, coded = KINDS[frame[2] & 7], frame[2] >> 3 & 7, frame[2] >> 6 & 1
    n, at = varint(frame, 3)
    nonzeros, at = varint(frame, at)
    body, result, start = frame[at:-4], {}, 0
    assert n == sum(length for length, _ in model)
    if kind == "whole":
        assert layout < len(SCHEMES) and not coded and nonzeros == n
        return SCHEMES[layout], dict(enumerate(whole(SCHEMES[layout], body, n, model)))
    if kind == "pruned" and coded:
        kind, coded = "announced", 0
    if kind == "f16" and coded:
        kind, coded, bits, body = "codebook", 0, body[0], body[1:]
        assert 2 <= bits <= 4
    scaled = kind in ("int8", "ternary")
    layout = LAYOUTS[layout]
    if layout == "dense":
        stream = RangeCoder(body) if coded else PlainBits(body)
        for length, _ in model:
            scale = f16(stream.bits(16)) if scaled else None
            if coded:
                codes = levels(stream, length)
            else:
                codes = [stream.long(WIDTHS.get(kind, 32)) for _ in range(length)]
            result.update((start + i, value(kind, code, scale)) for i, code in enumerate(codes))
            start += length
        stream.end()
        result = {i: v for i, v in result.items() if v != 0}
    else:
        streams = {"raw": PlainBits, "rice": PlainBits, "enumerative": RangeCoder}
        stream = streams.get(layout, Paired if frame[1] > 2 else RangeCoder)(body)
        makers = {"raw": Raw, "rice": Rice, "enumerative": Enumerative, "adaptive": lambda: Adaptive(frame[1])}
        coder = makers[layout]()
        k_left, n_left = nonzeros, n
        for length, row in model:
            before = n_left
            n_left -= length
            least, most = max(0, k_left - n_left), min(k_left, length)
            k = least if least == most else coder.count(stream, length, k_left, before)
            assert least <= k <= most
            k_left -= k
            if k > 0:
                where = coder.positions(stream, length, row, k) if k < length else range(k)
                assert len(where) == k and all(a < b for a, b in zip(where, where[1:])) and where[-1] < length
                scale = f16(stream.bits(16)) if scaled else None
                if kind == "ternary":
                    codes = stream.flags(k)
                elif kind == "integers":
                    codes = integers(stream, k)
                elif kind == "codebook":
                    codes = by_codebook(stream, k, bits)
                elif coded:
                    codes = levels(stream, k)
                else:
                    codes = [stream.long(WIDTHS[kind]) for _ in range(k)]
                values = [None] * k if WIDTHS.get(kind) == 0 else [value(kind, code, scale) for code in codes]
                result.update((start + i, v) for i, v in zip(where, values))
            start += length
        stream.end()
    assert len(result) == nonzeros, f"{len(result)} non-zeros, not {nonzeros}"
    return kind, result


def sample(n, count, seed):
    taken = []
    for i in range(n):
        if len(taken) < count and random(seed, i) * (n - i) >> 64 < count - len(taken):
            taken.append(i)
    return taken


def golden_vector(n=912):
    x, u = 1, []
    for _ in range(n):
        x = (1664525 * x + 1013904223) % 2**32
        r = (x >> 8) / 2**24 - 0.5
        u.append(single(single(r * r) * r))
    return u


def check():
    model, u = [(600, 20), (12, 12), (300, 300)], golden_vector()
    largest = sorted(sorted(range(912), key=lambda i: (-abs(u[i]), i))[:91])
    columns = [i for i in range(600) if i % 20 < 5]
    columns = sorted(sorted(columns, key=lambda i: (-abs(u[i]), i))[:91])
    long = [0.0 if 10000 <= i < 10400 else x for i, x in enumerate(golden_vector(40000))]
    many = sorted(sorted(range(40000), key=lambda i: (-abs(long[i]), i))[:5000])
    half = {i for i in range(912) if u[i] > 0.0 or i % 7 == 0}
    codebook = [0, 37, 4099, 50021, 777777, 1000003, 2000003]
    # Each line of the page's table of digests.
    page = (ROOT / "docs/WIRE.md").read_text(encoding="utf-8")
    digests = dict(re.findall(r"^\| `([a-z-]+)` \| `([0-9a-f]{16})` \|$", page, re.MULTILINE))
    read_files, by_book = 0, {}
    for folder, version in ((GOLDEN, 3), (GOLDEN / "2", 2)):
        signs, wholes = None, set()
        for path in sorted(folder.glob("*.bin")):
            frame = path.read_bytes()
            # Containers are there as well.
            if frame[0] != 0xD7:
                continue
            name = path.stem
            tensors = model
            if name == "ternary-many":
                tensors = [(40000, 40000)]
            if name.endswith("-blocks"):
                tensors = [(20000, 100)]
            if name == "grown":
                gone = [sum(1 for i in range(a, b) if i not in half) for a, b in ((0, 600), (600, 612), (612, 912))]
                tensors = [(count, count) for count in gone if count]
            kind, found = read(frame, tensors)
            read_files += 1
            assert frame[1] == version, name
            if name in ("ternary-raw", "ternary-rice", "ternary-enumerative", "ternary-adaptive"):
                assert list(found) == largest and all((v < 0) == (u[i] < 0) for i, v in found.items()), name
                assert signs is None or found == signs, name
                signs = found
            elif name.startswith("codebook-") and name != "codebook-dense":
                assert list(found) == largest and all((v < 0) == (u[i] < 0) for i, v in found.items()), name
                assert found == by_book.setdefault(version, found), name
                magnitudes = {abs(found[i]) for i in largest if i < 600}
                assert len(magnitudes) == 4 and all(
                    abs(abs(u[i]) - abs(found[i])) <= min(abs(abs(u[i]) - m) for m in magnitudes) + 1e-9
                    for i in largest
                    if i < 600
                ), name
            elif name in ("f32-adaptive", "f16-adaptive", "int8-adaptive"):
                assert set(found) <= set(largest), name
            if name == "f32-adaptive":
                assert all(found[i] == u[i] for i in largest)
            if name in ("f16-adaptive", "f16-dense"):
                assert all(v == struct.unpack("<e", struct.pack("<e", u[i]))[0] for i, v in found.items())
            if name == "ternary-mixed":
                assert list(found) == columns, name
            if name == "ternary-many":
                assert list(found) == many and all((v < 0) == (long[i] < 0) for i, v in found.items()), name
            if name == "pruned":
                assert set(found) == set(range(912)) - half, name
            if name == "announced":
                assert kind == "announced" and list(found) == sample(912, 90, 1), name
            if kind in SCHEMES:
                assert digest(found.values()) == digests[name], name
                wholes.add(name)
            if name == "common":
                expected = [round(max(-25.0, min(25.0, x * 2**8))) / 2**8 for x in u]
                assert [found[i] for i in range(912)] == expected, name
            if name == "common-plain":
                levels_of = [max(-3.0, min(3.0, x * 2**5)) for x in u]
                assert all(abs(found[i] * 2**5 - level) < 1 for i, level in enumerate(levels_of)), name
            if name == "integers-codebook":
                assert found == {i: codebook[int(50 * x)] for i, x in enumerate(u) if int(50 * x) > 0}, name
            if name == "integers-classes":
                assert found == {i: int(single(x * 1e6)) for i, x in enumerate(u) if int(single(x * 1e6)) != 0}, name
        # Those of several blocks came with version 3.
        assert wholes == {name for name in digests if version == 3 or not name.endswith("-blocks")}, version
    assert read_files >= 60, read_files
    print(f"{read_files} golden frames of two versions read as docs/WIRE.md says")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        tensors = [tuple(map(int, argument.split(","))) for argument in sys.argv[2:]]
        kind, found = read(Path(sys.argv[1]).read_bytes(), tensors)
        for i, v in found.items():
            print(i if v is None else f"{i} {v!r}")
    else:
        check()
