"""How far our own versions of games are from the games themselves, measured."""
