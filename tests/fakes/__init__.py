"""Real servers on loopback that stand for what the service talks to."""
