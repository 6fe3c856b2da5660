"""Certificates and the certificate authority of a site."""
