"""Commands of the command line that read the registry by themselves, without a gateway."""

READS = [
    "accounts list",
    "audit",
    "cells devices default",
    "cells list",
    "certificates list",
    "cluster",
    "devices list",
    "end-users export eu_1",
    "events security",
    "keys list",
    "projects list",
    "secrets status",
    "sessions list",
    "signing-keys list",
    "signing-keys progress",
]
