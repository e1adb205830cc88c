"""How people and programs prove who they are, and what stops those who guess."""
