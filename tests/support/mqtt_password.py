"""A device's MQTT password, implemented a second time from the contract's section 1."""

import base64
import hmac


def mqtt_password_of(token: str) -> str:
    """base64url(HMAC-SHA256(key = token, message = "mqtt")), without padding."""
    return base64.urlsafe_b64encode(hmac.digest(token.encode(), b"mqtt", "sha256")).decode().rstrip("=")
