#!/bin/sh
# Before an edit, in a cell of orchgit's: is the path in the scope? Anywhere else it says nothing.
#
# Claude Code lets the edit through when a hook fails, is missing or takes too long. So this is a quick word to an
# agent that would keep to its scope; what holds is the sandbox, and the gate that reads what was left.

[ -n "${ORCHGIT_BRIEF-}" ] || exit 0
command -v orchgit >/dev/null 2>&1 || exit 0
exec orchgit pre-tool
