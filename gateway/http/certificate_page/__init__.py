"""Page of a certificate of reset, to be read on a screen and printed on one sheet of A4 or Letter paper.

It is one document without scripts: its style is inside, and its QR code is a drawing. So it can be saved, mailed and
printed without the gateway.
"""

from gateway.http.certificate_page.document import POLICY, STYLE_HASH, render

__all__ = ["POLICY", "STYLE_HASH", "render"]
