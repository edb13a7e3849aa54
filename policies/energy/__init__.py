"""Energy control: budgets, caps and batteries as one price per joule."""
