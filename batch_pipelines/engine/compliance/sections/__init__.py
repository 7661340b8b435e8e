"""One module a type of report: its statements, and how their answers become figures and tables.

Each `read(connection, scope)` runs in the snapshot of the whole report and knows no other type. A thing
counts in the range in which it happened: a batch and all that belongs to it when it began, a checksum
when it was computed, an alert when it was raised, a deed when it was done. So months add up.
"""
