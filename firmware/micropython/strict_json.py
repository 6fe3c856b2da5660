"""A strict reader of JSON (RFC 8259) and a canonical writer (RFC 8785). The `json` of MicroPython accepts too much."""

from binascii import unhexlify

MAX_PAYLOAD = 18 * 1024  # bytes; the params of a command have at most 16 KiB
MAX_DEPTH = 16  # of nested objects and lists, for the stack of a small board
MAX_INTEGER = 2**53 - 1
EXACT_DIGITS = 15  # so many digits of a decimal fraction are the shortest that read back as the same double
UNKNOWN = b""  # a number whose canonical text only a float of 64 bits would tell
BLANKS = (b" ", b"\t", b"\n", b"\r")
LITERALS = ((b"true", True), (b"false", False), (b"null", None))
QUOTE, BACKSLASH = 0x22, 0x5C
ESCAPED, LETTERS = b'"\\\b\f\n\r\t/', b'"\\bfnrt/'  # characters, and the letters of their escapes
ESCAPES = {8: b"\\b", 9: b"\\t", 10: b"\\n", 12: b"\\f", 13: b"\\r", 34: b'\\"', 92: b"\\\\"}
# The first two bytes of what `decode` of MicroPython accepts: overlong forms, surrogates, points beyond Unicode.
NOT_UTF8 = ((0xC080, 0xC1BF), (0xE080, 0xE09F), (0xEDA0, 0xEDBF), (0xF080, 0xF08F), (0xF490, 0xF7BF))


def read_json(raw):
    """Return the value of a JSON text (RFC 8259) in UTF-8. A number with fraction or exponent is its canonical bytes.

    Raise ValueError for anything else, and for duplicate names, halves of surrogate pairs, more than MAX_PAYLOAD
    bytes and more than MAX_DEPTH levels.
    """
    if len(raw) > MAX_PAYLOAD:
        raise ValueError("too long")
    reader = _Reader(raw)
    value = reader.value(MAX_DEPTH)
    reader.take(b"")
    if reader.at < len(raw):
        raise ValueError("more than one value")
    return value


class _Reader:
    def __init__(self, raw):
        self.raw = raw
        self.at = 0

    def skip(self, expected):
        """Return whether these bytes come next, and step over them."""
        found = self.raw[self.at : self.at + len(expected)] == expected
        if found:
            self.at += len(expected)
        return found

    def take(self, expected):
        """The same after blanks."""
        while self.raw[self.at : self.at + 1] in BLANKS:
            self.at += 1
        return self.skip(expected)

    def need(self, expected):
        if not self.take(expected):
            raise ValueError(f"not JSON at byte {self.at}")

    def value(self, depth):
        if self.take(b'"'):
            return self.string()
        if self.take(b"{"):
            return self.container({}, b"}", depth)
        if self.take(b"["):
            return self.container([], b"]", depth)
        for word, value in LITERALS:
            if self.skip(word):
                return value
        return self.number()

    def container(self, found, end, depth):
        """Add the members that follow to an object or a list."""
        if depth == 0:
            raise ValueError("nested too deeply")
        while not self.take(end):
            if found:
                self.need(b",")
            if type(found) is list:
                found.append(self.value(depth - 1))
                continue
            self.need(b'"')
            name = self.string()
            if name in found:
                raise ValueError("duplicate name")
            self.need(b":")
            found[name] = self.value(depth - 1)
        return found

    def string(self):
        """Return the text up to the closing quote."""
        text = bytearray()
        while True:
            byte = self.raw[self.at] if self.at < len(self.raw) else 0
            self.at += 1
            if byte == QUOTE:
                return _text(text)
            if byte < 0x20:
                raise ValueError("a string without an end, or with a control character")
            if byte == BACKSLASH:
                text.extend(self.escape())
            else:
                text.append(byte)

    def escape(self):
        """Return in UTF-8 what the escape after a backslash stands for."""
        letter = LETTERS.find(self.raw[self.at : self.at + 1])
        if letter >= 0:
            self.at += 1
            return ESCAPED[letter : letter + 1]
        point = self.unit()
        if 0xD800 <= point < 0xDC00 and self.skip(b"\\"):
            low = self.unit()
            if not 0xDC00 <= low < 0xE000:
                raise ValueError("half of a surrogate pair")
            point = 0x10000 + (point - 0xD800 << 10) + low - 0xDC00
        return chr(point).encode()

    def unit(self):
        """Return the UTF-16 unit of `uXXXX`."""
        if not self.skip(b"u"):
            raise ValueError("not an escape")
        self.at += 4
        return int.from_bytes(unhexlify(self.raw[self.at - 4 : self.at]), "big")

    def number(self):
        sign = "-" if self.skip(b"-") else ""
        whole = "0" if self.skip(b"0") else self.digits()
        fraction = self.digits() if self.skip(b".") else ""
        power = ""
        if self.skip(b"e") or self.skip(b"E"):
            power = "-" if self.skip(b"-") else "+" if self.skip(b"+") else ""
            power += self.digits()
        if fraction or power:
            return _decimal(sign, whole, fraction, power or "0")
        return int(sign + whole) if len(whole) <= 20 else UNKNOWN

    def digits(self):
        start = self.at
        while self.raw[self.at : self.at + 1].isdigit():
            self.at += 1
        if self.at == start:
            raise ValueError(f"not JSON at byte {start}")
        return self.raw[start : self.at].decode()


def _text(raw):
    for at in range(len(raw) - 1):
        pair = raw[at] << 8 | raw[at + 1]
        if pair >= 0xC000 and any(low <= pair <= high for low, high in NOT_UTF8):
            raise ValueError("not UTF-8, or half of a surrogate pair")
    return raw.decode()


def _decimal(sign, whole, fraction, power):
    """Return a number as ECMAScript writes it: digits around a point, or one digit before it and an exponent."""
    digits = (whole + fraction).lstrip("0")
    point = len(digits) - len(fraction) + int(power)
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


def canonical(value):
    """Return canonical JSON (RFC 8785) as bytes, or raise ValueError when the value has no such form."""
    return b"".join(parts(value))


def parts(value):
    """Yield canonical JSON part by part, so that the whole of it need not be in memory."""
    kind = type(value)
    if value is None or kind is bool:
        yield b"null" if value is None else b"true" if value else b"false"
    elif kind is str:
        yield _quoted(value.encode())
    elif kind is int and -MAX_INTEGER <= value <= MAX_INTEGER:
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
        escaped = [ESCAPES.get(byte, b"\\u%04x" % byte if byte < 0x20 else bytes([byte])) for byte in raw]
        raw = b"".join(escaped)
    return b'"' + raw + b'"'


def _utf16(name):
    """Return a key that sorts as UTF-16 does: U+E000 to U+FFFF come after the characters beyond."""
    return [ord(each) + 0x110000 if 0xE000 <= ord(each) < 0x10000 else ord(each) for each in name]
