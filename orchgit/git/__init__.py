"""The one door to git.

`door` runs git and reads and writes objects, in a clean-room environment; `user` looks at the user's repository
(trusted, by GitPython); `trees` edits trees as values; `cells` makes the places where agents work; `gate` decides
what lands; `merges` builds commits and moves refs by compare-and-swap; `facts` answers audit.

Nothing here runs git in a directory that an agent can write: what comes out of a cell is bytes and object ids.
"""
