"""SHA-512 of the firmware: known answers of FIPS 180-4, and every length around its blocks."""

import hashlib

from tests.firmware.calls import calls

LONG = b"".join(bytes(range(first, first + 8)) for first in range(ord("a"), ord("o")))
KNOWN = {  # NIST, "SHA512.pdf" of the examples with intermediate values, and the empty message
    b"": "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"
    "47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
    b"abc": "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
    "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
    LONG: "8e959b75dae313da8cf4f72814fc143f8f7779c6eb9f7fa17299aeadb6889018"
    "501d289e4900f7e4331b99dec4b5433ac7d329eeb6dd26545e96e55b874be909",
}


def test_known_digests_match() -> None:
    """The digests that the standard publishes."""
    digests = calls(*(("sha512", message) for message in KNOWN))
    assert [each.hex() for each in digests] == list(KNOWN.values())


def test_every_length_around_two_blocks_is_padded_correctly() -> None:
    """The padding is right for each length, by another implementation."""
    messages = [bytes(at % 251 for at in range(length)) for length in range(260)]
    digests = calls(*(("sha512", message) for message in messages))
    assert digests == [hashlib.sha512(message).digest() for message in messages]
