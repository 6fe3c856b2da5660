"""Background publishers: device state, events and discovery messages for integrators."""
