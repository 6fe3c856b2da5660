"""SHA-512 (FIPS 180-4) in plain Python, for boards whose `hashlib` has SHA-256 only: slow, with little heap."""

from binascii import unhexlify

MASK = 0xFFFFFFFFFFFFFFFF
BLOCK = 128
# The first 64 bits of the fractions: of the square roots of the first 8 primes, of the cube roots of the first 80.
# As bytes, since 80 large integers would take 5 KiB of heap.
START = unhexlify(
    "6a09e667f3bcc908bb67ae8584caa73b3c6ef372fe94f82ba54ff53a5f1d36f1510e527fade682d19b05688c2b3e6c1f"
    "1f83d9abfb41bd6b5be0cd19137e2179"
)
K = unhexlify(
    "428a2f98d728ae227137449123ef65cdb5c0fbcfec4d3b2fe9b5dba58189dbbc3956c25bf348b53859f111f1b605d019"
    "923f82a4af194f9bab1c5ed5da6d8118d807aa98a303024212835b0145706fbe243185be4ee4b28c550c7dc3d5ffb4e2"
    "72be5d74f27b896f80deb1fe3b1696b19bdc06a725c71235c19bf174cf692694e49b69c19ef14ad2efbe4786384f25e3"
    "0fc19dc68b8cd5b5240ca1cc77ac9c652de92c6f592b02754a7484aa6ea6e4835cb0a9dcbd41fbd476f988da831153b5"
    "983e5152ee66dfaba831c66d2db43210b00327c898fb213fbf597fc7beef0ee4c6e00bf33da88fc2d5a79147930aa725"
    "06ca6351e003826f142929670a0e6e7027b70a8546d22ffc2e1b21385c26c9264d2c6dfc5ac42aed53380d139d95b3df"
    "650a73548baf63de766a0abb3c77b2a881c2c92e47edaee692722c851482353ba2bfe8a14cf10364a81a664bbc423001"
    "c24b8b70d0f89791c76c51a30654be30d192e819d6ef5218d69906245565a910f40e35855771202a106aa07032bbd1b8"
    "19a4c116b8d2d0c81e376c085141ab532748774cdf8eeb9934b0bcb5e19b48a8391c0cb3c5c95a634ed8aa4ae3418acb"
    "5b9cca4f7763e373682e6ff3d6b2b8a3748f82ee5defb2fc78a5636f43172f6084c87814a1f0ab728cc702081a6439ec"
    "90befffa23631e28a4506cebde82bde9bef9a3f7b2c67915c67178f2e372532bca273eceea26619cd186b8c721c0c207"
    "eada7dd6cde0eb1ef57d4f7fee6ed17806f067aa72176fba0a637dc5a2c898a6113f9804bef90dae1b710b35131c471b"
    "28db77f523047d8432caab7b40c724933c9ebe0a15c9bebc431d67c49c100d4c4cc5d4becb3e42b6597f299cfc657e2a"
    "5fcb6fab3ad6faec6c44198c4a475817"
)


def sha512(message):
    """Return the 64 bytes of the digest."""
    state = _words(START)
    length = len(message)
    whole = length - length % BLOCK
    for at in range(0, whole, BLOCK):
        _compress(state, message[at : at + BLOCK])
    tail = bytes(message[whole:]) + b"\x80"
    tail += bytes(-(len(tail) + 16) % BLOCK) + (8 * length).to_bytes(16, "big")
    for at in range(0, len(tail), BLOCK):
        _compress(state, tail[at : at + BLOCK])
    return b"".join([word.to_bytes(8, "big") for word in state])


def _compress(state, block):
    w = _words(block)
    a, b, c, d, e, f, g, h = state
    for i in range(80):
        if i >= 16:
            w[i & 15] = (
                w[i & 15] + _mix(w[(i + 1) & 15], 1, 8, 7) + w[(i + 9) & 15] + _mix(w[(i + 14) & 15], 19, 61, 6)
            ) & MASK
        t = h + (_turn(e, 14) ^ _turn(e, 18) ^ _turn(e, 41)) + ((e & f) ^ (~e & g)) + _word(K, i) + w[i & 15]
        s = (_turn(a, 28) ^ _turn(a, 34) ^ _turn(a, 39)) + ((a & b) ^ (a & c) ^ (b & c))
        h, g, f, e, d, c, b, a = g, f, e, (d + t) & MASK, c, b, a, (t + s) & MASK
    for i, word in enumerate((a, b, c, d, e, f, g, h)):
        state[i] = (state[i] + word) & MASK


def _words(raw):
    return [_word(raw, i) for i in range(len(raw) // 8)]


def _word(raw, i):
    return int.from_bytes(raw[8 * i : 8 * i + 8], "big")


def _mix(word, first, second, shift):
    return _turn(word, first) ^ _turn(word, second) ^ (word >> shift)


def _turn(word, by):
    """Rotate 64 bits to the right."""
    return (word >> by) | (word << (64 - by)) & MASK
