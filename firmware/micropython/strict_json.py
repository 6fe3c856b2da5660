"""A strict reader of JSON (RFC 8259) and a canonical writer (RFC 8785). The `json` of MicroPython accepts too much."""

MAX_PAYLOAD = 18 * 1024  # bytes; the params of a command have at most 16 KiB
MAX_DEPTH = 16  # of nested objects and lists, for the stack of a small board
MAX_INTEGER = 2**53 - 1
EXACT_DIGITS = 15  # so many digits of a decimal fraction are the shortest that read back as the same double


class Number:
    """A number with a fraction or an exponent, by its canonical text; None when it has none that is known here."""

    def __init__(self, text):
        self.text = text


def read_json(raw, limit=MAX_PAYLOAD):
    """Return the value of a JSON text (RFC 8259) in UTF-8.

    Raise ValueError for anything else, and for duplicate names, halves of surrogate pairs, more than `limit` bytes
    and more than MAX_DEPTH levels.
    """
    if len(raw) > limit:
        raise ValueError("too long")
    _check_utf8(raw)
    reader = _Reader(raw)
    value = reader.value(MAX_DEPTH)
    if reader.peek():
        raise ValueError("more than one value")
    return value


def _check_utf8(raw):
    at = 0
    while at < len(raw):
        lead = raw[at]
        size = 1 if lead < 0x80 else 2 if 0xC2 <= lead < 0xE0 else 3 if 0xE0 <= lead < 0xF0 else 4
        point = lead & (0x7F if size == 1 else 0x7F >> size)
        for byte in raw[at + 1 : at + size]:
            point = point << 6 | (byte & 0x3F if byte & 0xC0 == 0x80 else 1 << 30)
        least = (0, 0, 0x80, 0x800, 0x10000)[size]
        at += size
        if lead >= 0x80 and (not 0xC2 <= lead < 0xF5 or not least <= point < 0x110000 or 0xD800 <= point < 0xE000):
            raise ValueError("not UTF-8")
    if at > len(raw):
        raise ValueError("not UTF-8")


class _Reader:
    def __init__(self, raw):
        self.raw = raw
        self.at = 0

    def peek(self):
        """Skip blanks and return the next byte as bytes; empty at the end."""
        while self.raw[self.at : self.at + 1] in (b" ", b"\t", b"\n", b"\r"):
            self.at += 1
        return self.raw[self.at : self.at + 1]

    def take(self, expected):
        if self.peek() != expected:
            raise ValueError(f"not JSON at byte {self.at}")
        self.at += 1

    def value(self, depth):
        first = self.peek()
        if depth == 0 and first in (b"{", b"["):
            raise ValueError("nested too deeply")
        if first == b'"':
            return self.string()
        if first == b"{":
            return self.members(depth)
        if first == b"[":
            return self.elements(depth)
        start = self.at
        while self.raw[self.at : self.at + 1] not in (b"", b" ", b"\t", b"\n", b"\r", b",", b"]", b"}"):
            self.at += 1
        return _plain(self.raw[start : self.at].decode())

    def members(self, depth):
        found = {}
        self.take(b"{")
        while self.peek() != b"}" or found:
            if self.peek() != b'"':
                raise ValueError(f"not JSON at byte {self.at}")
            name = self.string()
            if name in found:
                raise ValueError("duplicate name")
            self.take(b":")
            found[name] = self.value(depth - 1)
            if self.peek() == b"}":
                break
            self.take(b",")
        self.take(b"}")
        return found

    def elements(self, depth):
        found = []
        self.take(b"[")
        while self.peek() != b"]" or found:
            found.append(self.value(depth - 1))
            if self.peek() == b"]":
                break
            self.take(b",")
        self.take(b"]")
        return found

    def string(self):
        parts, start = [], self.at + 1
        while True:
            end = self.raw.find(b'"', start)
            if end < 0:
                raise ValueError("a string without an end")
            slash = self.raw.find(b"\\", start, end)
            part = self.raw[start : end if slash < 0 else slash]
            if part and min(part) < 0x20:
                raise ValueError("a control character in a string")
            parts.append(part.decode())
            if slash < 0:
                self.at = end + 1
                return "".join(parts)
            start = self.escape(slash + 1, parts)

    def escape(self, at, parts):
        """Append the character of the escape whose letter is at `at`; return where the text goes on."""
        letter = self.raw[at : at + 1].decode()
        if letter != "u":
            plain = '"\\/bfnrt'.find(letter)
            if not letter or plain < 0:
                raise ValueError("not an escape")
            parts.append('"\\/\b\f\n\r\t'[plain])
            return at + 1
        unit, at = self.unit(at + 1)
        if 0xD800 <= unit < 0xDC00 and self.raw[at : at + 2] == b"\\u":
            low, at = self.unit(at + 2)
            unit = 0x10000 + (unit - 0xD800 << 10) + low - 0xDC00 if 0xDC00 <= low < 0xE000 else unit
        if 0xD800 <= unit < 0xE000:
            raise ValueError("half of a surrogate pair")
        parts.append(chr(unit))
        return at

    def unit(self, at):
        digits = self.raw[at : at + 4].decode()
        if len(digits) < 4 or not all(each in "0123456789abcdefABCDEF" for each in digits):
            raise ValueError("not an escape")
        return int(digits, 16), at + 4


def _plain(word):
    if word in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[word]
    sign = "-" if word.startswith("-") else ""
    mantissa, _, exponent = word[len(sign) :].replace("E", "e").partition("e")
    whole, _, fraction = mantissa.partition(".")
    power = exponent[1:] if exponent[:1] in ("+", "-") else exponent
    if not _digits(whole) or (whole[0] == "0" and len(whole) > 1):
        raise ValueError(f"not JSON: {word[:16]}")
    if ("." in mantissa and not _digits(fraction)) or (len(word) > len(sign + mantissa) and not _digits(power)):
        raise ValueError(f"not JSON: {word[:16]}")
    if len(word) == len(sign + whole) and len(whole) <= 20:
        return int(word)
    digits = (whole + fraction).lstrip("0")
    point = len(digits) - len(fraction) + (int(exponent) if 0 < len(power) < 4 else 0)
    digits = digits.rstrip("0")
    known = len(digits) <= EXACT_DIGITS and len(power) < 4 and -290 < point < 300
    return Number((sign + _placed(digits, point) if digits else "0") if known else None)


def _digits(text):
    return bool(text) and all(each in "0123456789" for each in text)


def _placed(digits, point):
    """Write a number as ECMAScript does: the point after `point` digits, or an exponent if that is long."""
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    if 0 < point <= 21:
        whole, rest = digits[:point], digits[point:]
        return whole + "0" * (point - len(whole)) + ("." + rest if rest else "")
    return digits[0] + ("." + digits[1:] if len(digits) > 1 else "") + f"e{point - 1:+d}"


def canonical(value):
    """Return canonical JSON (RFC 8785) as bytes, or raise ValueError when the value has no such form."""
    text = bytearray()
    write(value, text.extend)
    return bytes(text)


def write(value, put):
    """Pass canonical JSON to `put` part by part, so that the whole of it need not be in memory."""
    kind = type(value)
    if value is None or kind is bool:
        put(b"null" if value is None else b"true" if value else b"false")
    elif kind is str:
        put(_quoted(value.encode()))
    elif kind is int and -MAX_INTEGER <= value <= MAX_INTEGER:
        put(str(value).encode())
    elif kind is Number and value.text:
        put(value.text.encode())
    elif kind in (list, tuple):
        for at, each in enumerate(value):
            put(b"," if at else b"[")
            write(each, put)
        put(b"]" if value else b"[]")
    elif kind is dict:
        for at, name in enumerate(sorted(value, key=_utf16)):
            put((b"," if at else b"{") + _quoted(name.encode()) + b":")
            write(value[name], put)
        put(b"}" if value else b"{}")
    else:
        raise ValueError("no canonical JSON")


def _quoted(raw):
    if min(raw or b"x") < 0x20 or b'"' in raw or b"\\" in raw:
        raw = b"".join([_escaped(byte) for byte in raw])
    return b'"' + raw + b'"'


def _escaped(byte):
    short = b'"\\\b\f\n\r\t'.find(bytes([byte]))
    if short >= 0:
        return b"\\" + b'"\\bfnrt'[short : short + 1]
    return b"\\u%04x" % byte if byte < 0x20 else bytes([byte])


def _utf16(name):
    """Return a key that sorts by UTF-16 units: a character beyond 0xFFFF comes before U+E000."""
    return [unit for each in name for unit in _units(ord(each))]


def _units(point):
    return (point,) if point < 0x10000 else (0xD800 + (point - 0x10000 >> 10), 0xDC00 + (point & 0x3FF))
