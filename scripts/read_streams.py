"""The streams of docs/WIRE.md, the frequencies that are read from them, and floats. Used by `read_frame.py`."""
import bisect
import struct


def log2(n):
    return n.bit_length() - 1


class Numbers:
    """What both kinds of stream have on top of `bits`."""

    def long(self, b):
        if b <= 16:
            return self.bits(b)
        low = self.bits(16)
        return self.bits(b - 16) << 16 | low

    def number(self):
        c = self.bits(5)
        return 1 << c | self.long(c)

    def flags(self, k):
        result = []
        while len(result) < k:
            m = min(16, k - len(result))
            word = self.bits(m)
            result += [word >> i & 1 for i in range(m)]
        return result


class PlainBits(Numbers):
    def __init__(self, body):
        self.value, self.at, self.bytes = int.from_bytes(body, "little"), 0, len(body)

    def bits(self, b):
        result = self.value >> self.at & ((1 << b) - 1)
        self.at += b
        return result

    def unary(self):
        u = 0
        while self.bits(1):
            u += 1
        return u

    def end(self):
        assert (self.at + 7) // 8 == self.bytes and self.value >> self.at == 0


class RangeCoder(Numbers):
    def __init__(self, body):
        self.body, self.at, self.range = body, 4, 2**32 - 1
        self.code = int.from_bytes((body + bytes(4))[:4], "big")

    def normalize(self):
        while self.range < 1 << 24:
            byte = self.body[self.at] if self.at < len(self.body) else 0
            self.at += 1
            self.code = (self.code << 8 | byte) % 2**32
            self.range <<= 8

    def choice(self, p):
        bound = self.range * p >> 18
        result = self.code < bound
        if result:
            self.range = bound
        else:
            self.code -= bound
            self.range -= bound
        self.normalize()
        return result

    def equal(self, m):
        self.range //= m
        v = min(self.code // self.range, m - 1)
        self.code -= v * self.range
        self.normalize()
        return v

    def bits(self, b):
        return self.equal(1 << b)

    def uniform(self, m):
        width = 0 if m == 1 else log2(m - 1) + 1
        low = max(0, width - 12)
        v = self.equal((m - 1 >> low) + 1)
        while low > 0:
            b = min(low, 16)
            low -= b
            v = v << b | self.bits(b)
        assert v < m
        return v

    def used(self, others_behind=False):
        """Bytes that a writer of what was read would have needed."""
        window = (self.body + bytes(8))[self.at - 4 : self.at]
        low = (int.from_bytes(window, "big") - self.code) % 2**32
        if (low, self.range) == (0, 2**32 - 1):
            return 0
        for m in range(5):
            rest = (1 << 32 - 8 * m) - 1
            number = (low + rest) & ~rest
            if (number + rest if others_behind else number) < low + self.range:
                return self.at - 4 + m

    def end(self):
        assert len(self.body) == self.used(), "left over or cut short"


class Paired(RangeCoder):
    """Plain bits from the front, the range coder's bytes from the back."""

    def __init__(self, body):
        super().__init__(body[::-1])
        self.plain = PlainBits(body)

    def bits(self, b):
        return self.plain.bits(b)

    def end(self):
        assert len(self.body) == self.used(True) + (self.plain.at + 7) // 8, "left over or cut short"


class Frequencies:
    """Intervals of 2**16 steps that follow the counts of the symbols so far."""

    def __init__(self, symbols):
        self.counts = [0] * symbols
        self.refresh()

    def refresh(self):
        symbols, seen = len(self.counts), sum(self.counts)
        self.wait = min(max(seen, 16), 4096)
        self.starts, total = [0], 0
        for s, count in enumerate(self.counts):
            total += 4 * count + 1
            self.starts.append(s + 1 + total * (65536 - symbols) // (4 * seen + symbols))

    def symbol(self, stream):
        stream.range >>= 16
        step = min(stream.code // stream.range, 65535)
        s = bisect.bisect_right(self.starts, step) - 1
        stream.code -= stream.range * self.starts[s]
        stream.range *= self.starts[s + 1] - self.starts[s]
        stream.normalize()
        self.counts[s] += 1
        self.wait -= 1
        if self.wait == 0:
            self.refresh()
        return s


def levels(stream, count, symbols=256):
    frequencies = Frequencies(symbols)
    return [frequencies.symbol(stream) for _ in range(count)]


def single(x):
    """Rounds to f32. f64 has more than twice its digits, so a sum, product or quotient of two f32 comes out as if
    rounded once."""
    return struct.unpack("<f", struct.pack("<f", x))[0]


def f32(bits):
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def f16(bits):
    return struct.unpack("<e", struct.pack("<H", bits))[0]
