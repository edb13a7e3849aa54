"""How a client of a hub sends: routes and their leases, links, and what happens without them."""
