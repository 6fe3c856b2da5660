"""Conformance kit: plays gateway and hostile broker against a real device, and reports each line of the checklist."""
