"""Values and pure functions. They do no input or output and import no other package of the gateway."""
