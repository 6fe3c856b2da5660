"""SHA-512 (FIPS 180-4) in plain Python, for boards whose `hashlib` has SHA-256 only: slow, with little heap."""

MASK = 0xFFFFFFFFFFFFFFFF
BLOCK = 128
PRIMES = [number for number in range(2, 410) if all(number % each for each in range(2, number))]  # the first 80


def _root(number, power):
    """Return the first 64 bits of the fraction of the square or cube root of a prime below 512."""
    root = 0
    for bit in range(68, -1, -1):
        more = root | 1 << bit
        if more**power <= number << 64 * power:
            root = more
    return root & MASK


START = [_root(prime, 2) for prime in PRIMES[:8]]
K = b"".join([_root(prime, 3).to_bytes(8, "big") for prime in PRIMES])  # as bytes: 80 large integers take 5 KiB


def sha512(message):
    """Return the 64 bytes of the digest."""
    state, bits = START, 8 * len(message)
    message = b"".join((message, b"\x80", bytes(-(len(message) + 17) % BLOCK), bits.to_bytes(16, "big")))
    for at in range(0, len(message), BLOCK):
        added = _compressed(state, message[at : at + BLOCK])
        state = [(state[i] + added[i]) & MASK for i in range(8)]
    return b"".join([word.to_bytes(8, "big") for word in state])


def _compressed(state, block):
    """Return what is added to the state."""
    w = [_word(block, i) for i in range(16)]
    a, b, c, d, e, f, g, h = state
    for i in range(80):
        if i >= 16:
            late, early = w[(i - 2) & 15], w[(i - 15) & 15]
            late = _turn(late, 19) ^ _turn(late, 61) ^ late >> 6
            early = _turn(early, 1) ^ _turn(early, 8) ^ early >> 7
            w[i & 15] = (w[i & 15] + early + w[(i - 7) & 15] + late) & MASK
        t = h + (_turn(e, 14) ^ _turn(e, 18) ^ _turn(e, 41)) + ((e & f) ^ (~e & g)) + _word(K, i) + w[i & 15]
        s = (_turn(a, 28) ^ _turn(a, 34) ^ _turn(a, 39)) + ((a & b) ^ (a & c) ^ (b & c))
        h, g, f, e, d, c, b, a = g, f, e, (d + t) & MASK, c, b, a, (t + s) & MASK
    return a, b, c, d, e, f, g, h


def _word(raw, i):
    return int.from_bytes(raw[8 * i : 8 * i + 8], "big")


def _turn(word, by):
    """Rotate 64 bits to the right."""
    return (word >> by) | (word << (64 - by)) & MASK
