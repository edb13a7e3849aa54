"""The hub of a fleet: it knows its nodes, has a policy decide, and says where requests go."""
