"""The compliance report: what the ledger says of a range of time, stored, provable and signed.

`scope` says what a report is about, `sections/` read one type each, `reading` all of them in one
snapshot, `making` keeps what was made, `signing` proves and signs it. How it looks is in `rendering`.
"""
