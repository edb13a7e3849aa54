"""What a device costs: profiles, their files, and the cost model made of them."""
