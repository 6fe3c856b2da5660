"""Webhook deliveries: the worker, the sender, the HTTP client."""
