"""Tables that were there before us: given a stamp, or an import history taken over, while in use.

`track` gives a table its stamp, `adopt` takes an import history over, `give_back` undoes both, and
`standing` says how far they came. Every step first looks at what the catalog has, so that a command that
was killed anywhere goes on when it is typed again. docs/adoption.md lists the locks.
"""
