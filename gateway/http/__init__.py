"""The HTTP API: one table of operations, from which routes, checks and the OpenAPI document are made."""
