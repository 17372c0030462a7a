//! Schedule: which page is due, and the durable ledger of who fetches it.
