"""Mosquitto: its password file, its process, and the checks that it has read a change."""
