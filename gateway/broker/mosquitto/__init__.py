"""Mosquitto: its password file, its process, and the checks that it took a change."""
