"""What the gateway tells others of its own accord: webhooks."""
