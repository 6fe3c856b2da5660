"""The descriptions of the interfaces that machines read: OpenAPI and AsyncAPI."""
