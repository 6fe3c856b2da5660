"""Verification of Ed25519 signatures (RFC 8032, 5.1.7), strict.

The slow path is plain Python. A native module `monocypher` takes over where it can be imported. It has one function,
`ed25519_check(signature, public, message)`, which returns True for a good signature. The checks in `verify` itself hold
for both.
"""

from sha512 import sha512

try:
    from monocypher import ed25519_check
except ImportError:
    ed25519_check = None

P = 2**255 - 19  # the field
L = 2**252 + 27742317777372353535851937790883648493  # the order of the base point
D = -121665 * pow(121666, P - 2, P) % P
D2 = 2 * D % P
ROOT = pow(2, (P - 1) // 4, P)  # a square root of -1
Y_BITS = 2**255 - 1
BASE_X = 0x216936D3CD6E53FEC0A4E231FDD6DC5C692CC7609525A7B2C9562D608F25D51A
BASE_Y = 4 * pow(5, P - 2, P) % P
BASE = (BASE_X, BASE_Y, 1, BASE_X * BASE_Y % P)  # points are (X, Y, Z, T): x = X/Z, y = Y/Z, xy = T/Z
EIGHTH = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
# A key of one of these y has at most 8 multiples, so it would take a signature that anyone can make.
SMALL_ORDER = (0, 1, P - 1, EIGHTH, P - EIGHTH)


def verify(public, message, signature):
    """Return whether the 64 bytes are the signature of the message by this public key of 32 bytes."""
    s = int.from_bytes(signature[32:], "little")
    if not is_key(public) or len(signature) != 64 or s >= L:
        return False
    if ed25519_check:
        return bool(ed25519_check(signature, public, message))
    minus_key = _decode_negated(public)
    if minus_key is None:
        return False
    k = int.from_bytes(sha512(signature[:32] + public + message), "little") % L
    # R = S B - k A. The bytes are compared, so a second encoding of R does not pass.
    return _encode(_sum_of_products(s, BASE, k, minus_key)) == signature[:32]


def is_key(public):
    """Return whether these are 32 bytes of the one form that a key has: a y below P, and not of small order."""
    y = int.from_bytes(public, "little") & Y_BITS
    return len(public) == 32 and y < P and y not in SMALL_ORDER


def _decode_negated(data):
    """Return minus the point of the bytes of a key, or None when they are not on the curve (RFC 8032, 5.1.3)."""
    number = int.from_bytes(data, "little")
    y, sign = number & Y_BITS, number >> 255
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if (x * x - square) % P:
        return None
    if x & 1 == sign:
        x = P - x  # it is not 0: the keys with that x are of small order
    return (x, y, 1, x * y % P)


def _encode(point):
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _sum_of_products(s, p, k, q):
    """Return s p + k q, bit by bit for both at once. Public values only, so the time may depend on them."""
    terms = (None, p, q, _add(p, q))
    total = (0, 1, 1, 0)
    for bit in range(252, -1, -1):
        total = _add(total, total)
        term = terms[(s >> bit & 1) + 2 * (k >> bit & 1)]
        if term:
            total = _add(total, term)
    return total


def _add(p, q):
    """Return the sum of two points, which may be the same."""
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = p[3] * q[3] * D2 % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)
