"""The pure part: what may happen and what happens next. No clock, chance, files, processes or network here.

Read in this order: pattern, scope, plan, review, events, run, state, handlers, decide, audit.
"""
