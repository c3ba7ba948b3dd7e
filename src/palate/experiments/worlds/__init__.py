"""Worlds in which policies can be compared: people with latent interests, a catalogue, and a stated model of both."""
