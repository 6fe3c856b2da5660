"""Values and pure functions: no input, no output, no other package of the gateway."""
