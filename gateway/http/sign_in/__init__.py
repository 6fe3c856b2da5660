"""People who sign in over HTTP: cookies, sessions, and the paths to and from the provider (contract, section 9)."""
