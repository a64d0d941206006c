"""Attacks by git: commands, configuration, hand-made objects, and a harvest that lies."""

from __future__ import annotations

from functools import partial

from tests.attacks.catalogue import CONTAINED, DETECTED, OPEN, PREVENTED, Attack
from tests.attacks.files import LITTLE

command = partial(Attack, group="git in the cell", answer=CONTAINED, by="only the net change is judged and lands")
config = partial(Attack, group="git made to run code", answer=CONTAINED, by="the engine runs no git in a cell")
objects = partial(Attack, group="objects made by hand", answer=DETECTED, by="admit: index-pack --strict", lang="py")
forged = partial(Attack, group="a harvest that lies", answer=DETECTED, by="admit", how=LITTLE)

RUNS = LITTLE + 'git config {} "$MARK"\n'
# A commit on HEAD, made without the working tree.
PLANT = """
blob=$(echo evil | git hash-object -w --stdin)
git update-index --add --cacheinfo 100644,$blob,README.md
"""

COMMANDS: list[Attack] = [
    command("commit-no-verify", answer=PREVENTED, by="hook: reference-transaction", how=LITTLE + PLANT + "git commit -q --no-verify -m x",
            what="commit a file out of scope past the hooks, not touching the working tree"),
    command("commit-no-hooks", how=LITTLE + PLANT + "git -c core.hooksPath=/dev/null commit -qm x",
            what="the same with the hooks switched off"),
    command("commit-plumbing", what="the same by plumbing",
            how=LITTLE + PLANT + "c=$(git commit-tree $(git write-tree) -p HEAD -m x); git update-ref --no-deref HEAD $c"
            " || echo $c >../git/HEAD"),
    command("commit-and-revert", what="commit a file out of scope, and take it back in a second commit",
            how=LITTLE + PLANT + "git -c core.hooksPath=/dev/null commit -qm 1; git reset -q HEAD~1 -- README.md;"
            " git -c core.hooksPath=/dev/null commit -qm 2"),
    command("fast-import", how=LITTLE + "printf 'commit refs/heads/x\\ncommitter a <a@b> 1 +0000\\ndata 1\\nx\\n"
            "M 100644 inline README.md\\ndata 1\\nx\\n' | git -c core.hooksPath=/dev/null fast-import --quiet;"
            " git -c core.hooksPath=/dev/null symbolic-ref HEAD refs/heads/x", what="a history by fast-import, with no root in ours"),
    command("orphan", what="a root commit of its own",
            how=LITTLE + "echo $(git commit-tree HEAD^{tree} -m root) >../git/HEAD"),
    command("evil-merge", what="a merge that holds more than its parents",
            how=LITTLE + PLANT + "t=$(git write-tree); git read-tree HEAD;"
            " echo $(git commit-tree $t -p HEAD -p $(git commit-tree HEAD^{tree} -p HEAD -m a) -m m) >../git/HEAD"),
    command("octopus", what="a merge with the same parent and two others",
            how=LITTLE + "a=$(git commit-tree HEAD^{tree} -m a); b=$(git commit-tree HEAD^{tree} -m b);"
            " echo $(git commit-tree HEAD^{tree} -p HEAD -p $a -p $b -m o) >../git/HEAD"),
    command("empty-commits", what="empty commits reported as work", answer=DETECTED, rule="nothing was changed", by="gate",
            how="for i in 1 2 3; do git -c core.hooksPath=/dev/null commit -q --allow-empty -m $i; done"),
    command("other-s-commit", what="stand on a private commit of the user's", needs="secrets",
            before="git checkout -q private && echo p >p && git add p && git commit -qm p && git checkout -q main",
            how=LITTLE + "git -C \"$USER_REPO\" rev-parse private >../git/HEAD"),
    command("move-branches", what="move every branch of its git directory",
            how=LITTLE + "git config core.hooksPath /dev/null; git branch -f main HEAD; git tag v1;"
            " git branch -M main main2"),
    command("stash", what="hide work in a stash", how=LITTLE + "echo 2 >src/api/a.py; git -c core.hooksPath=/dev/null stash -q"
            " -- src/api/a.py"),
    command("replace", what="replace a file's content by a replace ref",
            how=LITTLE + "git -c core.hooksPath=/dev/null replace -f HEAD:other/c.py $(echo evil | git hash-object -w --stdin)"),
    command("replace-commit", what="replace the base by a replace ref",
            how=LITTLE + PLANT + "git -c core.hooksPath=/dev/null replace -f HEAD $(git commit-tree $(git write-tree) -m x)"),
    command("grafts", what="another history by a grafts file", how=LITTLE + "mkdir -p ../git/info;"
            " git rev-parse HEAD >../git/info/grafts"),
    command("shallow", what="cut the history off by a shallow file", how=LITTLE + "git rev-parse HEAD >../git/shallow"),
    command("alternates", what="take the user's objects away from its git directory",
            how=LITTLE + ": >../git/objects/info/alternates"),
    command("gc", what="collect garbage at once", how=LITTLE + "git gc -q --prune=now; git repack -adq; git pack-refs --all"),
    command("worktree", what="another work tree of its git directory", how=LITTLE + "git -c core.hooksPath=/dev/null worktree add -q"
            " --detach $TMPDIR/w HEAD"),
    command("sparse", what="hide files by a sparse checkout", how=LITTLE + "git config core.sparseCheckout true;"
            " mkdir -p ../git/info; echo /src/ >../git/info/sparse-checkout"),
    command("exclude", what="hide its own files by info/exclude", how=LITTLE + "mkdir -p ../git/info; echo '*' >../git/info/exclude",
            by="harvest: its own git directory and configuration"),
    command("locks", what="leave lock files wherever git takes one",
            how=LITTLE + "for f in index HEAD config packed-refs shallow refs/heads/x; do mkdir -p ../git/$(dirname $f);"
            " : >../git/$f.lock; done; : >../git/gc.pid; : >../git/objects/maintenance.lock"),
    command("break-git", what="delete its git directory", how=LITTLE + "rm -rf ../git/* || true", by="harvest: a spare git directory"),
    command("future-git", what="a git directory of a format that does not exist yet",
            how=LITTLE + "git config core.repositoryformatversion 99", by="harvest: a spare git directory"),
    command("git-elsewhere", what="send git to the user's directory by commondir",
            how=LITTLE + "echo \"$USER_REPO/.git\" >../git/commondir", by="sandbox; the gate reads only bytes"),
    command("head-link", what="HEAD as a link to a file of the host", how=LITTLE + "rm ../git/HEAD; ln -s /etc/passwd ../git/HEAD",
            by="harvest: a spare git directory"),
    command("index-directory", what="a directory where git has its index", how=LITTLE + "rm -f ../git/index; mkdir ../git/index"),
    command("tmp-names", what="take the names that the harvest could use",
            how=LITTLE + "for f in harvest harvest-index harvest-said harvest-objects home; do mkdir $TMPDIR/$f; done;"
            " chmod 0 $TMPDIR/harvest"),
    command("push-user", what="push into the user's repository by its path", answer=OPEN, needs="prevented", outside=True,
            how="git -c core.hooksPath=/dev/null push -q \"$USER_REPO/.git\" HEAD:refs/heads/pushed", by="sandbox"),
    command("push-origin", what="push to where the user pushes", answer=PREVENTED, how="git -c core.hooksPath=/dev/null push -q origin HEAD:refs/heads/pushed",
            before="git remote add origin https://example.invalid/x", by="a cell has no remotes"),
    command("fetch-user", needs="secrets", what="read a private branch of the user's by its path (reading is not prevented)",
            how=LITTLE + "git fetch -q \"$USER_REPO/.git\" private"),
    command("author", what="commit in somebody else's name", by="the engine writes the commit that lands",
            how=LITTLE + "git add -A; git -c core.hooksPath=/dev/null commit -q --author 'Ada <ada@example.org>' -m x"),
    command("trailers", what="a commit message with the engine's own trailers", by="the engine writes the commit that lands",
            how=LITTLE + "git add -A; git -c core.hooksPath=/dev/null commit -qm 'x\n\nOrchgit-Run: other\nOrchgit-Assignment: all'"),
]  # fmt: skip

CONFIGS: list[Attack] = [
    *(
        config(f"config-{key.lower()}", what=f"{key} names a program", how=RUNS.format(key))
        for key in ("core.fsmonitor", "core.pager", "core.editor", "core.sshCommand", "core.askPass", "diff.external",
                    "gpg.program", "credential.helper", "core.alternateRefsCommand", "uploadpack.packObjectsHook")
    ),
    config("config-filter", what="a filter that runs for every file",
           how=RUNS.format("filter.x.clean") + "git config filter.x.smudge \"$MARK\"; git config filter.x.required true;"
           " mkdir -p ../git/info; echo '* filter=x' >../git/info/attributes"),
    config("config-process", what="a filter process", answer=CONTAINED,
           how=RUNS.format("filter.x.process") + "mkdir -p ../git/info; echo '* filter=x' >../git/info/attributes",
           by="harvest: a spare git directory"),
    config("config-textconv", what="a textconv and a diff driver", how=RUNS.format("diff.x.textconv") +
           "git config diff.x.command \"$MARK\"; mkdir -p ../git/info; echo '* diff=x merge=x' >../git/info/attributes"),
    config("config-hooks", what="hooks of its own, in its git directory",
           how=LITTLE + "git config core.hooksPath $PWD/../git/h; mkdir ../git/h; for h in pre-commit post-index-change"
           " reference-transaction post-checkout pre-auto-gc; do cp \"$MARK\" ../git/h/$h; done"),
    config("config-include", what="include a configuration from the work tree", how=LITTLE +
           "printf '[core]\\n\\tfsmonitor = %s\\n' \"$MARK\" >src/api/cfg; git config include.path $PWD/src/api/cfg"),
    config("config-worktree", what="the same by config.worktree", how=LITTLE + "git config extensions.worktreeConfig true;"
           " printf '[core]\\n\\tfsmonitor = %s\\n' \"$MARK\" >../git/config.worktree"),
    config("config-home", what="the same by ~/.gitconfig of its HOME", how=LITTLE +
           "printf '[core]\\n\\tfsmonitor = %s\\n\\thooksPath = %s\\n' \"$MARK\" \"$HOME\" >$HOME/.gitconfig"),
    config("config-promisor", what="a partial clone that fetches missing objects by a program",
           how=LITTLE + "git config remote.x.url \"ext::sh $MARK\"; git config protocol.ext.allow always;"
           " git config remote.x.promisor true; git config extensions.partialClone x; git config core.repositoryformatversion 1"),
    config("config-alias", what="aliases for the commands that the engine uses", how=LITTLE +
           "for c in add write-tree rev-parse diff-tree; do git config alias.$c \"!$MARK\"; done"),
    config("bare-in-tree", what="a bare repository inside the work, with a program in its configuration", answer=CONTAINED,
           how="git init -q --bare src/api/b; git -C src/api/b config core.fsmonitor \"$MARK\"; echo x >src/api/b/x"),
    config("path-git", what="a program called git in the work tree and in HOME", how=LITTLE +
           "cp \"$MARK\" src/api/git; mkdir -p $HOME/bin $HOME/.local/bin; cp \"$MARK\" $HOME/bin/git; cp \"$MARK\" $HOME/.local/bin/git"),
    config("config-shell-rc", what="start-up files of every shell in HOME", how=LITTLE +
           "for f in .bashrc .profile .bash_profile .zshenv .zshrc .envrc; do echo \"$MARK\" >$HOME/$f; done"),
    config("config-python-rc", what="Python start-up files in HOME and in the work tree", how=LITTLE +
           "d=$HOME/.local/lib/python3.11/site-packages; mkdir -p $d; echo \"import os; os.system('$MARK')\" >$d/usercustomize.py;"
           " cp $d/usercustomize.py src/api/git.py"),
    config("stop-harvest", what="stop the harvest by a signal from a filter", by="harvest: its own git directory and configuration",
           how=LITTLE + "git config filter.x.clean 'kill -STOP $PPID; cat'; mkdir -p ../git/info; echo '* filter=x' >../git/info/attributes"),
    config("kill-harvest", what="kill the harvest from a filter", by="harvest: its own git directory and configuration",
           how=LITTLE + "git config filter.x.clean 'kill -9 $PPID'; mkdir -p ../git/info;"
           " echo '* filter=x' >../git/info/attributes"),
    config("hang-harvest", what="git's configuration as a pipe that nobody writes to", answer=DETECTED, rule="packed",
           patience_s=2, by="deadline of the harvest",
           how=LITTLE + "mkfifo $TMPDIR/p; rm ../git/config; ln -s $TMPDIR/p ../git/config"),
    config("write-into-harvest", what="write into the harvest's own output from a filter", by="harvest: its own git directory and configuration",
           how=LITTLE + "git config filter.x.clean 'p=$PPID; for i in 1 2 3; do for f in 1 10 11; do"
           " [ -p /proc/$p/fd/$f ] && echo 0000000000000000000000000000000000000000 >/proc/$p/fd/$f; done; tr \"\\0\" \" \" </proc/$p/cmdline | grep -q harvest && break;"
           " p=$(cut -d\" \" -f4 /proc/$p/stat); done 2>/dev/null; cat';"
           " mkdir -p ../git/info; echo 'honest.py filter=x' >../git/info/attributes"),
    config("lie-in-filter", what="a filter that gives git other content than is in the file", answer=CONTAINED,
           by="what git was given is what is judged",
           how=LITTLE + "git config filter.x.clean 'echo other'; mkdir -p ../git/info; echo 'honest.py filter=x' >../git/info/attributes"),
]  # fmt: skip

# A tree with these entries in a commit between the base and HEAD: only its history holds it.
TREE = "honest(); b = obj('blob', b'x'); t = tree((b'100644', b'f', b))\n"
OBJECTS: list[Attack] = [
    *(
        objects(f"tree-{key}", what=f"a tree with {what}", how=f"{TREE}move(commit(tree({entries}), head()))", rule=rule)
        for key, what, entries, rule in (
            ("dot-dot", "an entry ..", "(b'40000', b'..', t)", "hasDotdot"),
            ("dot", "an entry .", "(b'40000', b'.', t)", "hasDot"),
            ("dot-git", "an entry .git", "(b'40000', b'.git', t)", "hasDotgit"),
            ("dot-git-case", "an entry .GIT", "(b'40000', b'.GIT', t)", "hasDotgit"),
            ("git-8.3", "an entry GIT~1", "(b'40000', b'GIT~1', t)", "hasDotgit"),
            ("git-hfs", "an entry .git with an invisible letter", "(b'40000', '.g\\u200cit'.encode(), t)", "hasDotgit"),
            ("git-stream", "an entry .git::$INDEX_ALLOCATION", "(b'40000', b'.git::$INDEX_ALLOCATION', t)", "hasDotgit"),
            ("slash", "an entry with a slash in its name", "(b'100644', b'../../evil', b)", "fullPathname"),
            ("unsorted", "entries out of order", "(b'100644', b'z', b), (b'100644', b'a', b)", "NotSorted"),
            ("twice", "an entry twice", "(b'100644', b'a', b), (b'100644', b'a', b)", "contains duplicate"),
            ("file-and-directory", "a file and a directory of one name", "(b'100644', b'a', b), (b'40000', b'a', t)",
             "contains duplicate"),
            ("zero-mode", "a mode with a zero in front", "(b'0100644', b'a', b)", "zeroPadded"),
            ("gitmodules-link", ".gitmodules as a symbolic link", "(b'120000', b'.gitmodules', b)", "gitmodules"),
        )
    ),
    *(
        objects(f"tree-{key}", what=f"a tree with {what}", how=f"{TREE}move(commit(tree({entries}), head()))",
                answer=CONTAINED, by="only the net change lands")
        for key, what, entries in (
            ("nameless", "an entry without a name", "(b'100644', b'', b)"),
            ("mode", "a mode that git does not know", "(b'100777', b'a', b)"),
            ("null", "an entry of no object", "(b'100644', b'a', '0' * 40)"),
        )
    ),
    objects("submodule-option", what="a submodule whose address is an option (CVE-2018-17456)", rule="gitmodulesUrl",
            how="honest(); m = obj('blob', b'[submodule \"x\"]\\n\\tpath = x\\n\\turl = -u./evil\\n')\n"
            "move(commit(tree((b'100644', b'.gitmodules', m)), head()))"),
    objects("submodule-name", what="a submodule whose name leads out (CVE-2018-11235)", rule="gitmodulesName",
            how="honest(); m = obj('blob', b'[submodule \"../../evil\"]\\n\\tpath = x\\n\\turl = x\\n')\n"
            "move(commit(tree((b'100644', b'.gitmodules', m)), head()))"),
    objects("commit-no-mail", what="a commit whose author has no address", rule="missingEmail",
            how=TREE + "move(commit(t, head(), author=b'a 1767225600 +0000'))"),
    objects("commit-zero-byte", what="a commit with a zero byte in its head", rule="nulIn",
            how=TREE + "move(obj('commit', b'tree ' + t.encode() + b'\\nparent ' + head().encode() + b'\\nauthor ' + WHO"
            " + b'\\ncommitter ' + WHO + b'\\nx y\\0z\\n\\nm\\n'))"),
    objects("commit-two-authors", what="a commit with two authors", rule="multipleAuthors",
            how=TREE + "move(commit(t, head(), author=WHO + b'\\nauthor ' + WHO))"),
    objects("commit-time", what="a commit from a year that no clock can show", rule="Date",
            how=TREE + "move(commit(t, head(), author=b'a <a@b> 99999999999999999999999 +0000'))"),
    objects("commit-zone", what="a commit with an impossible time zone", rule="Timezone",
            how=TREE + "move(commit(t, head(), author=b'a <a@b> 1 +99'))"),
    objects("missing-blob", what="a file whose content is missing", answer=CONTAINED, by="harvest: a spare git directory",
            how="honest(); move(commit(tree((b'100644', b'a', '1' * 40)), head()))"),
    objects("missing-parent", what="a commit whose parent is missing", answer=CONTAINED, by="harvest: a spare git directory",
            how=TREE + "move(commit(t, '2' * 40))"),
    objects("wrong-type", what="a file where a tree should be", answer=CONTAINED, by="harvest: a spare git directory",
            how="honest(); b = obj('blob', b'x'); move(commit(tree((b'40000', b'a', b)), head()))"),
    objects("head-is-a-tree", what="HEAD as a tree", answer=CONTAINED, by="harvest", how=TREE + "move(t)"),
    objects("head-is-a-tag", what="HEAD as a tag", answer=CONTAINED, by="harvest",
            how=TREE + "move(obj('tag', b'object ' + head().encode() + b'\\ntype commit\\ntag x\\ntagger ' + WHO + b'\\n\\nx\\n'))"),
    objects("corrupt-object", what="an object whose content is not what its name says", answer=CONTAINED,
            by="harvest: a spare git directory",
            how=TREE + "c = commit(t, head()); put(f'{git_dir}/objects/{c[:2]}/{c[2:]}', b'rubbish'); move(c)"),
    objects("shadow-object", what="other content under the name of one of the user's objects", answer=CONTAINED,
            by="git re-hashes; the base is read from the user's own",
            how="honest(); import subprocess\noid = subprocess.check_output(['git', 'rev-parse', 'HEAD:README.md'], text=True).strip()\n"
            "raw = b'blob 4\\0evil'; put(f'{git_dir}/objects/{oid[:2]}/{oid[2:]}', zlib.compress(raw))"),
    objects("many-parents", what="a commit with a thousand parents", answer=CONTAINED, by="only the net change lands",
            how=TREE + "p = [commit(t, message=b'%d' % n) for n in range(1000)]; move(commit(t, head(), *p))"),
    objects("long-message", what="a commit message of 20 MB", answer=CONTAINED, by="only the net change lands",
            how=TREE + "move(commit(t, head(), message=b'x' * 20_000_000))"),
    objects("escape-message", what="a commit message that writes to the terminal", answer=CONTAINED,
            by="the engine writes the message that lands",
            how=TREE + "move(commit(t, head(), message=b'\\x1b]52;c;ZXZpbA==\\x07\\x1b[2J'))"),
]  # fmt: skip

# In place of the harvest: it knows the start and the git directory, and may print what it likes.
LIE = """
work, start, git_dir = sys.argv[1:4]
def pack(*objects, count=None, tail=b""):
    body = struct.pack(">4sII", b"PACK", 2, len(objects) if count is None else count)
    for kind, data in objects:
        size = len(data); byte = kind << 4 | size & 15; size >>= 4; head = b""
        while size:
            head += bytes((byte | 128,)); byte = size & 127; size >>= 7
        body += head + bytes((byte,)) + zlib.compress(data, 1)
    return body + hashlib.sha1(body).digest() + tail
def name(kind, data):
    return hashlib.sha1(kind + b" %d\\0" % len(data) + data).hexdigest().encode()
def entry(path, oid=None, mode=b"100644"):
    return mode + b" " + (oid or name(b"blob", blob)) + b"\\t" + path + b"\\0"
def say(*records, head=None, length=None, data=None):
    listing = b"".join(records)
    length = b"%d" % len(listing) if length is None else length
    sys.stdout.buffer.write((start.encode() if head is None else head) + b"\\n" + length + b"\\n" + listing)
    sys.stdout.buffer.write(pack((3, blob)) if data is None else data)
    sys.stdout.flush()
blob = b"evil\\n"
api = b"src/api/x.py"
"""
FORGED: list[Attack] = [
    forged(f"lie-{key}", what=what, harvest=LIE + lie, rule=rule)
    for key, what, lie, rule in (
        ("out-of-scope", "a sound answer with a file out of scope", "say(entry(b'README.md'))", "outside"),
        ("gone", "say that a file out of scope is gone", "say(b'-README.md\\0')", "outside"),
        ("all-gone", "say that everything is gone", "say(b'-\\0', *(b'-' + d + b'\\0' for d in (b'src', b'tests', b'other')))", "outside"),
        ("silent", "print nothing", "pass", "no snapshot"),
        ("rubbish", "print rubbish", "print('evil\\nevil\\nevil')", "no snapshot"),
        ("option", "an id that is an option", "say(entry(api), head=b'--output=/tmp/evil')", "no snapshot"),
        ("revision", "an id that is an expression", "say(entry(api), head=start.encode() + b'^{/x}')", "no snapshot"),
        ("upper-case", "an id in capital letters", "say(entry(api), head=b'A' * 40)", "no snapshot"),
        ("return", "an id with a carriage return", "say(entry(api), head=start.encode() + b'\\r')", "no snapshot"),
        ("two-questions", "an id and a second question to git", "say(entry(api), head=start.encode() + b' ' + start.encode())", "no snapshot"),
        ("sha256", "an id of another length", "say(entry(api), head=b'a' * 64)", "refused"),
        ("unknown", "an id of nothing", "say(entry(api), head=b'a' * 40)", "refused"),
        ("tree-as-head", "a tree for a commit", "t = b'100644 a\\0' + bytes.fromhex(name(b'blob', blob).decode())\n"
         "say(entry(api), head=name(b'tree', t), data=pack((2, t), (3, blob)))", "another kind"),
        ("length-word", "a length that is no number", "say(entry(api), length=b'many')", "no snapshot"),
        ("length-less", "a length below zero", "say(entry(api), length=b'-1')", "no snapshot"),
        ("length-more", "a length beyond the end", "say(entry(api), length=b'99999999')", "no snapshot"),
        ("length-short", "a length that cuts a name off", "say(entry(api), length=b'50')", ""),
        ("record", "a line of the list that is none", "say(b'evil\\0')", "no snapshot"),
        ("dot-dot", "a name with .. in it", "say(entry(b'src/api/../../README.md'))", "not a name"),
        ("absolute", "a name from the root of the host", "say(entry(b'/etc/passwd'))", "not a name"),
        ("dot-git", "a name in .git", "say(entry(b'.git/config'))", "not a name"),
        ("dot-git-inside", "a name in a .GIT in scope", "say(entry(b'src/api/.GIT/config'))", "not a name"),
        ("git-8.3", "a name in GIT~1", "say(entry(b'src/api/GIT~1/config'))", "not a name"),
        ("git-hfs", "a name in a .git with an invisible letter", "say(entry('src/api/.g\\u200cit/x'.encode()))", "not a name"),
        ("double-slash", "a name with an empty part", "say(entry(b'src/api//x'))", "not a name"),
        ("ends-in-slash", "a name that ends in a slash", "say(entry(b'src/api/x/'))", "not a name"),
        ("dot", "a name that begins with ./", "say(entry(b'./src/api/x'))", "not a name"),
        ("nameless", "a file without a name", "say(entry(b''))", ""),
        ("both", "a file and a directory of one name", "say(entry(b'src/api/x'), entry(b'src/api/x/y'))", "not a name"),
        ("control", "a name with a newline in it", "say(entry(b'src/api/a\\nb'))", "control"),
        ("deep", "a name nested 3000 deep", "say(entry(b'src/api/' + b'd/' * 3000 + b'x'))", "nested too deep"),
        ("many", "six thousand files of one content", "say(*(entry(b'src/api/%d' % n) for n in range(6000)))", "6000 files"),
        ("link", "a symbolic link", "say(entry(b'src/api/x', mode=b'120000'))", "symbolic link"),
        ("gitlink", "a submodule", "say(entry(b'src/api/x', mode=b'160000'))", "submodule"),
        ("tree-entry", "a tree as an entry", "t = b'100644 README.md\\0' + bytes.fromhex(name(b'blob', blob).decode())\n"
         "say(entry(b'src/api/x', name(b'tree', t), b'040000'), data=pack((2, t), (3, blob)))", ""),
        ("tree-as-file", "a tree as a file's content", "t = b'100644 README.md\\0' + bytes.fromhex(name(b'blob', blob).decode())\n"
         "say(entry(api, name(b'tree', t)), data=pack((2, t), (3, blob)))", "another kind"),
        ("mode", "a mode that git does not know", "say(entry(api, mode=b'100777'))", ""),
        ("missing", "a file whose content is not there", "say(entry(api, b'a' * 40))", "not there"),
        ("no-pack", "names, and no objects", "say(entry(api), data=b'')", "not there"),
        ("empty-pack", "names, and an empty pack", "say(entry(api), data=pack())", "not there"),
        ("cut-pack", "half of a pack", "say(entry(api), data=pack((3, blob))[:-10])", "refused"),
        ("flipped-pack", "a pack with one byte changed", "p = bytearray(pack((3, blob))); p[16] ^= 1; say(entry(api), data=bytes(p))", "refused"),
        ("wrong-sum", "a pack with another check sum", "say(entry(api), data=pack((3, blob))[:-1] + b'x')", "refused"),
        ("count", "a pack that claims four thousand million objects", "say(entry(api), data=pack((3, blob), count=0xFFFFFFFF))", "refused"),
        ("bad-delta", "a pack with a delta on what is not there", "say(entry(api), data=pack((7, b'x' * 20), (3, blob)))", "refused"),
        ("bad-type", "a pack with an object of no type", "say(entry(api), data=pack((0, b'x'), (3, blob)))", "refused"),
        ("signal", "die by a signal at the end", "say(entry(api)); os.kill(os.getpid(), 9)", "packed"),
        ("exit-code", "a sound answer and an exit code", "say(entry(api)); os._exit(3)", "packed"),
        ("bomb", "a file of 200 MB in a pack of 1 MB", "blob = bytes(200_000_000); say(entry(api))", "bytes, at most"),
    )
]  # fmt: skip
FORGED += [
    forged("lie-tail", what="something after the pack", answer=CONTAINED, by="git reads one pack",
           harvest=LIE + "say(entry(api), data=pack((3, blob), tail=b'evil'))"),
    forged("lie-user-commit", what="name a private commit of the user's as its history", answer=CONTAINED, needs="secrets", held=DETECTED,
           by="only the list is judged and lands",
           before="git checkout -q private && echo p >p && git add p && git commit -qm p && git checkout -q main",
           harvest=LIE + "import subprocess\n"
           "user = open(git_dir + '/objects/info/alternates').read().strip().strip('\"').removesuffix('/objects')\n"
           "say(entry(api), head=subprocess.check_output(['git', '--git-dir', user, 'rev-parse', 'private']).strip())"),
]  # fmt: skip

ATTACKS = [*COMMANDS, *CONFIGS, *OBJECTS, *FORGED]
