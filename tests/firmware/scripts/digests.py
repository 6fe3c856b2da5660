"""Prints the SHA-512 of each line of hexadecimal digits that it reads."""

import sys
from binascii import hexlify, unhexlify

from sha512 import sha512

for line in sys.stdin:
    print(hexlify(sha512(unhexlify(line.strip()))).decode())
