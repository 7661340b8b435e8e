"""Who may do what in the ledger: `grants`, and how a database gets them (`settle`)."""
