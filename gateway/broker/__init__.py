"""The broker's side: access rules, the embedded broker, and access sync of other brokers with the registry."""
