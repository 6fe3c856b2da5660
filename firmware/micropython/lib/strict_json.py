"""A strict reader of JSON (RFC 8259) and a canonical writer (RFC 8785). The `json` of MicroPython accepts too much."""

from binascii import unhexlify

MAX_PAYLOAD = 18 * 1024  # bytes; the params of a command have at most 16 KiB
MAX_DEPTH = 16  # of nested objects and lists, for the stack of a small board
MAX_INTEGER = 2**53 - 1
EXACT_DIGITS = 15  # so many digits of a decimal fraction are the shortest that read back as the same double
UNKNOWN = b""  # a number whose canonical text only a float of 64 bits would tell
# For each byte whether it is a blank, part of a word or number, or text in a string that stands for itself.
BLANK = bytes([byte in (0x20, 0x09, 0x0A, 0x0D) for byte in range(256)])
WORD = bytes([0x30 <= byte <= 0x39 or 0x61 <= byte | 32 <= 0x7A or byte in (0x2B, 0x2D, 0x2E) for byte in range(256)])
PLAIN = bytes([byte >= 0x20 and byte not in (0x22, 0x5C) for byte in range(256)])
LITERALS = {b"true": True, b"false": False, b"null": None}
ESCAPES = {8: b"\\b", 9: b"\\t", 10: b"\\n", 12: b"\\f", 13: b"\\r", 34: b'\\"', 47: b"\\/", 92: b"\\\\"}
# The first two bytes of what `decode` of MicroPython accepts: overlong forms, surrogates, points beyond Unicode.
NOT_UTF8 = ((0xC080, 0xC1BF), (0xE080, 0xE09F), (0xEDA0, 0xEDBF), (0xF080, 0xF08F), (0xF490, 0xF7BF))


def require(holds, message):
    """Raise ValueError with this message unless the condition holds."""
    if not holds:
        raise ValueError(message)


def read_json(raw):
    """Return the value of a JSON text (RFC 8259) in UTF-8. A number with fraction or exponent is its canonical bytes.

    Raise ValueError for anything else, and for duplicate names, halves of surrogate pairs, more than MAX_PAYLOAD
    bytes and more than MAX_DEPTH levels.
    """
    require(len(raw) <= MAX_PAYLOAD, "too long")
    for at in range(len(raw) - 1):
        pair = raw[at] << 8 | raw[at + 1]
        if pair >= 0xC000 and any(low <= pair <= high for low, high in NOT_UTF8):
            raise ValueError("not UTF-8")
    reader = _Reader(raw)
    value = reader.value(MAX_DEPTH)
    reader.span(BLANK)
    require(reader.at == len(raw), "more than one value")
    return value


class _Reader:
    def __init__(self, raw):
        self.raw = raw
        self.at = 0

    def span(self, kind):
        """Step over the bytes of a kind, and return them."""
        start = self.at
        while self.at < len(self.raw) and kind[self.raw[self.at]]:
            self.at += 1
        return self.raw[start : self.at]

    def skip(self, expected):
        """Return whether these bytes come next, and step over them."""
        found = self.raw.startswith(expected, self.at)
        if found:
            self.at += len(expected)
        return found

    def take(self, expected):
        """The same after blanks."""
        self.span(BLANK)
        return self.skip(expected)

    def value(self, depth):
        if self.take(b'"'):
            return self.string()
        if self.skip(b"{"):
            return self.container({}, b"}", depth)
        if self.skip(b"["):
            return self.container([], b"]", depth)
        word = self.span(WORD)
        return LITERALS[word] if word in LITERALS else _number(word.decode().lower())

    def container(self, found, end, depth):
        """Add the members that follow to an object or a list."""
        require(depth, "nested too deeply")
        while not self.take(end):
            if found:
                require(self.take(b","), "no comma")
            if type(found) is list:
                found.append(self.value(depth - 1))
                continue
            require(self.take(b'"'), "no name")
            name = self.string()
            require(name not in found, "duplicate name")
            require(self.take(b":"), "no colon")
            found[name] = self.value(depth - 1)
        return found

    def string(self):
        """Return the text up to the closing quote."""
        text = bytearray(self.span(PLAIN))
        while not self.skip(b'"'):
            text.extend(self.escape())
            text.extend(self.span(PLAIN))
        return text.decode()

    def escape(self):
        """Return in UTF-8 what an escape stands for."""
        for byte, escape in ESCAPES.items():
            if self.skip(escape):
                return bytes([byte])
        point = self.unit()
        if 0xD800 <= point < 0xE000:
            low = self.unit()
            require(point < 0xDC00 <= low < 0xE000, "half of a surrogate pair")
            point = 0x10000 + (point - 0xD800 << 10) + low - 0xDC00
        return chr(point).encode()

    def unit(self):
        """Return the UTF-16 unit of `uXXXX` after a backslash."""
        require(self.skip(b"\\u"), "a string without an end, with a control character, or with a wrong escape")
        self.at += 4
        return int.from_bytes(unhexlify(self.raw[self.at - 4 : self.at]), "big")


def _number(text):
    """Return an integer, or the canonical bytes of another number in small letters."""
    sign = "-" if text.startswith("-") else ""
    mantissa, e, power = text[len(sign) :].partition("e")
    whole, point, fraction = mantissa.partition(".")
    shift = power[1:] if power[:1] in ("+", "-") else power
    require(whole.isdigit() and (whole[0] != "0" or whole == "0"), "not a number")
    require(fraction.isdigit() == bool(point) and shift.isdigit() == bool(e), "not a number")
    if not point and not e:
        return int(sign + whole) if len(whole) <= 20 else UNKNOWN
    # As ECMAScript writes it: digits around a point, or one digit before it and an exponent.
    digits = (whole + fraction).lstrip("0")
    point = len(digits) - len(fraction) + int(power or "0")
    digits = digits.rstrip("0")
    if not digits:
        return b"0"
    if len(digits) > EXACT_DIGITS or not -290 < point < 300:
        return UNKNOWN
    exponent = ""
    if not -6 < point <= 21:
        point, exponent = 1, f"e{point - 1:+d}"
    digits = "0" * (1 - point) + digits + "0" * (point - len(digits))
    point = max(point, 1)
    text = sign + digits[:point] + "." + digits[point:]
    return (text.rstrip(".") + exponent).encode()


def parts(value):
    """Yield canonical JSON (RFC 8785) in parts, so that the whole of it need not be in memory.

    Raise ValueError when the value has no such form.
    """
    kind = type(value)
    if value is None or kind is bool:
        yield b"null" if value is None else b"true" if value else b"false"
    elif kind is str:
        yield _quoted(value.encode())
    elif kind is int and abs(value) <= MAX_INTEGER:
        yield str(value).encode()
    elif kind is bytes and value != UNKNOWN:
        yield value
    elif kind in (list, tuple):
        for at, each in enumerate(value):
            yield b"," if at else b"["
            yield from parts(each)
        yield b"]" if value else b"[]"
    elif kind is dict:
        for at, name in enumerate(sorted(value, key=_utf16)):
            yield (b"," if at else b"{") + _quoted(name.encode()) + b":"
            yield from parts(value[name])
        yield b"}" if value else b"{}"
    else:
        raise ValueError("no canonical JSON")


def _quoted(raw):
    if min(raw or b"x") < 0x20 or b'"' in raw or b"\\" in raw:
        raw = b"".join([bytes([byte]) if PLAIN[byte] else ESCAPES.get(byte, b"\\u%04x" % byte) for byte in raw])
    return b'"' + raw + b'"'


def _utf16(name):
    """Return a key that sorts as UTF-16 does: U+E000 to U+FFFF come after the characters beyond."""
    return [ord(each) + 0x110000 if 0xE000 <= ord(each) < 0x10000 else ord(each) for each in name]
