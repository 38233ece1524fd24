"""Who may do what: every route for every kind of caller (contract sections 3, 7 and 19)."""
