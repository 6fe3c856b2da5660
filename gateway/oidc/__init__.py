"""OpenID Connect, as the relying party: discovery, the code flow with PKCE, tokens, logout messages, roles."""
