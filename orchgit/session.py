"""Opening a run: a new one on an issue, or one that is there, with the world that its engine acts on.

What a run depends on is frozen at its start: configuration and roster are one blob, and resume reads that blob,
whatever the files say by then.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import secrets
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from orchgit import __version__, agents, publish, recovery, roster, runner, signatures
from orchgit.agent_run import Agents, furnish, live_transcript
from orchgit.agents import prices
from orchgit.agents.budget import Ledger, taken
from orchgit.config import CONFIG_PATH, Config, ShipMode, state_home
from orchgit.config import Forge as ForgeConfig
from orchgit.config import load as load_config
from orchgit.core import events as e
from orchgit.core.codec import decode, dumps, encode
from orchgit.core.errors import Kind, OrchgitError
from orchgit.core.plan import Member, Plan, Problem, imprecise, problems
from orchgit.core.run import Run
from orchgit.effects import World, observe
from orchgit.eventlog import Log, Store, runs_dir, user_name
from orchgit.forge import Forge, connect
from orchgit.forge_in import Ear, Poller
from orchgit.forge_out import Writer
from orchgit.git import cells, trees
from orchgit.git.door import Door
from orchgit.git.user import UserRepo, git_version
from orchgit.patience import Patience
from orchgit.sandbox import Level, Sandbox, best, overlay_works, require_networks
from orchgit.watch import Watchdog

TOOL = f"orchgit/{__version__}"
Progress = Callable[[str, str], None]


@dataclass(frozen=True)
class Issue:
    source: str
    title: str
    text: str
    number: int = 0  # at a forge
    remote: str = ""  # the git remote that is that forge


@dataclass(frozen=True)
class Options:
    """What the command line of `start` adds to the configuration."""

    backend: str = ""  # of everybody, but those in by_name
    by_name: tuple[tuple[str, str], ...] = ()  # (name in the roster, backend)
    playbook: str = ""
    model: str = ""
    approval: Literal["human", "policy"] = "human"
    ship: ShipMode | None = None
    allow_unsandboxed: bool = False


def new_run_name() -> str:
    """Sorts by time, short enough to type, and unlikely to be taken."""
    alphabet = "23456789abcdefghjkmnpqrstuvwxyz"
    tail = "".join(secrets.choice(alphabet) for _ in range(3))
    return f"{datetime.now(UTC):%y%m%d-%H%M%S}-{tail}"


def link_runs(repo: UserRepo, run: str) -> None:
    """`.orchestration/runs/<run>` names the real directory in the git directory, where `git clean` does not go."""
    folder = repo.root / ".orchestration" / "runs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ignore = folder.parent / ".gitignore"
        if not ignore.exists() or not ignore.stat().st_size:  # empty: killed while writing it
            ignore.write_text("runs/\n.gitignore\n")  # without `orchgit init`, not even the ignore file is to show
        link = folder / run
        if not link.is_symlink():
            link.symlink_to(runs_dir(repo.common) / run, target_is_directory=True)
    except OSError:
        pass  # a work tree that cannot be written still has its log


def choose(members: tuple[roster.RosterMember, ...], config: Config, options: Options) -> tuple[
    tuple[roster.RosterMember, ...], list[str]
]:  # fmt: skip
    """Give everybody on the roster a backend that is there. Raises OrchgitError (UNAVAILABLE): never a fall-back."""
    said: list[str] = []
    found: dict[str, agents.Probe] = {}
    named = dict(options.by_name)
    unknown = [name for name in named if name not in [m.member.name for m in members]]
    if unknown:
        known = ", ".join(m.member.name for m in members)
        raise OrchgitError(Kind.USAGE, f"--agent {unknown[0]}={named[unknown[0]]}: nobody has that name", known)

    def probe(name: str) -> agents.Probe:
        if name not in found:
            found[name] = agents.backend(name).probe(config.options(name))
        return found[name]

    chosen = []
    for member in members:
        name = named.get(member.member.name) or options.backend or member.member.backend
        if not name:
            name = next((b for b in config.backends if b not in agents.ONLY_CHOSEN and probe(b).found), "")
            if name and not said:
                said.append(f"no backend is configured; using {name}, which is here ({probe(name).detail})")
        if name in agents.ONLY_WORKS and member.member.role != "worker":
            raise OrchgitError(
                Kind.USAGE, f"{member.member.name} cannot have the backend {name!r}", "it is for workers only",
                f"write `backend: {name}` in the files of those workers who are people, in .claude/agents",
            )  # fmt: skip
        if not name or not probe(name).found:
            raise _nobody(name, {b: probe(b) for b in ([name] if name else config.backends)})
        backend = agents.backend(name)
        model = options.model or member.member.model
        if name.startswith(agents.COMMAND):
            said += _unbound(member, name)
        if name == "codex" and model.startswith("claude-"):
            said.append(f"{member.member.name}: {model} is no model of Codex's; it takes its own")
            model = ""
        model = "scripted" if name == "scripted" else model or backend.default_model
        chosen.append(replace(member, member=replace(member.member, backend=name, model=model)))
    return tuple(chosen), [*said, *_open(chosen, config)]


def _unbound(member: roster.RosterMember, name: str) -> list[str]:
    """What the configuration says of a member and a command cannot be held to, in words."""
    who, found = member.member.name, []
    if member.tools != agents.ROLE_TOOLS[member.member.role]:
        found.append(f"{who}: {name} has tools of its own; `tools` in its file does not bind it, the sandbox does")
    if member.limits.tokens is not None:
        found.append(f"{who}: {name} does not tell what it uses, so `tokens` does not limit it; `seconds` does")
    return found


def _open(chosen: list[roster.RosterMember], config: Config) -> list[str]:
    """Who reaches the network whole, key in hand, in words. OrchgitError (USAGE) where the configuration says no."""
    outward: dict[str, list[str]] = {}
    for one in chosen:
        member = one.member
        least = agents.backend(member.backend).needs(config.options(member.backend)).network
        given = config.network.of(member.role, least)
        if agents.NETWORKS.index(given) < agents.NETWORKS.index(least):
            raise OrchgitError(
                Kind.USAGE,
                f"{member.name} cannot work by {member.backend} with the network that it may have: "
                f'[network] {member.role} = "{given}"',
                f"{member.backend} runs whole inside the sandbox, and has to reach its service from there "
                f"(it needs {least})",
                f'write {member.role} = "auto" in [network] of {CONFIG_PATH}, or take the backend anthropic, whose '
                "tools run without a network",
            )
        if least == "open":
            outward.setdefault(member.backend, []).append(member.name)
    return [
        f"{name} runs whole inside the sandbox, with its credential and an open network: {', '.join(who)}"
        for name, who in outward.items()
    ]


def _nobody(name: str, probes: dict[str, agents.Probe]) -> OrchgitError:
    lines = [f"{b}: {p.detail}" + (f" ({p.hint})" if p.hint else "") for b, p in probes.items()]
    return OrchgitError(
        Kind.UNAVAILABLE,
        f"the agent backend {name!r} cannot be used" if name else "there is no agent to do the work",
        "\n".join(lines),
        "choose one:\n"
        "  orchgit agents                         what is here, and what each of them wants\n"
        "  export ANTHROPIC_API_KEY=…             the built-in agent, over the Anthropic API; or Claude Code\n"
        "  orchgit start ISSUE --backend scripted --playbook FILE   a script; no model is called\n"
        "  orchgit demo                           see the whole of it with scripted agents",
    )


def _priced(members: tuple[roster.RosterMember, ...], config: Config) -> None:
    """A money budget can be kept only where the price is known. Raises OrchgitError (USAGE) with what to do."""
    most = config.budget
    for m in members:
        limits = [m.limits.cost_micro, most.cost_usd, most.assignment_cost_usd if m.member.role == "worker" else None]
        if all(limit is None for limit in limits):
            continue
        backend = agents.backend(m.member.backend)
        if backend.cost == "free" or backend.cost == "reported":
            continue
        overrides = config.options(backend.name).get("prices")
        known = prices.price_of(m.member.model, prices.parse_overrides(overrides) if overrides else None)
        if backend.cost == "table" and known is not None:
            continue
        raise OrchgitError(
            Kind.USAGE, f"there is a money budget, and what {m.member.name} costs is unknown",
            f"model {m.member.model}, backend {backend.name}: its price is not in orchgit's table of {prices.AS_OF}",
            f"give it in {CONFIG_PATH}: [prices.\"{m.member.model}\"] with input, output, cache_read and cache_write, "
            "in dollars per million tokens; or limit tokens instead of cost_usd",
        )  # fmt: skip


def freeze(config: Config, members: tuple[roster.RosterMember, ...]) -> bytes:
    """Configuration and roster as one blob."""
    people = [
        {"member": encode(m.member), "prompt": m.prompt, "tools": list(m.tools), "limits": encode(m.limits)}
        for m in members
    ]
    return dumps({"config": json.loads(config.to_json()), "roster": people}).encode()


def thaw(data: bytes) -> tuple[Config, roster.Roster]:
    fields: dict[str, Any] = json.loads(data)
    members = tuple(
        roster.RosterMember(
            decode(Member, m["member"]), m["prompt"], tuple(m["tools"]), decode(agents.Limits, m["limits"]), None
        )
        for m in fields["roster"]
    )
    return Config.from_json(json.dumps(fields["config"])), roster.Roster(members, ())


def ledger(run: Run, store: Store) -> Ledger:
    """What the run has spent until now; of agents that an engine left behind, what their transcripts show."""
    made = Ledger(run.settings.budget, run.settings.assignment_budget)
    made.raise_by(run.raised)
    for name, work in run.works.items():
        made.raise_by(work.raised, name)
    for seq, spending in run.spent.items():
        used, said = spending.used, live_transcript(store, seq)
        if seq in run.begun and seq not in run.waits and said.exists():
            used = taken(said.read_text("utf-8", "replace").splitlines())
        kind, _, name = spending.about.partition("/")
        made.add(used, name if kind == "work" else "")
    return made


class Session:
    """A run that is open for writing, and its world. Close it."""

    def __init__(
        self, repo: UserRepo, log: Log, listeners: tuple[runner.Listener, ...], progress: Progress,
        confined: tuple[Sandbox, Level] | None = None,
    ) -> None:  # fmt: skip
        self.repo = repo
        self.runner = runner.Runner(log, listeners)
        self.confined = confined  # before `world` is asked for
        self._progress = progress
        self._world: World | None = None
        self._writer: Writer | None = None
        self._connecting = threading.Lock()
        self._leaving = threading.Event()  # whoever waits for a forge gives up

    @property
    def world(self) -> World:
        if self._world is None:
            # The engine holds the agents' key: no crash may leave it in a core file that a later agent could read.
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            log = self.runner.log
            started = self.runner.run.started
            assert started is not None
            config, people = thaw(log.blob(started.config))
            place = state_home(config, os.environ) / cells.repository_id(self.repo.common) / log.run
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            door = Door(self.repo.common, self.repo.object_format, owner=log.run)
            assert self.confined is not None
            sandbox = furnish(*self.confined, config, door, place)
            run = self.runner.run
            patience = Patience(run.waits.values())
            team = Agents(config, people, log, sandbox, sandbox.level, self._progress, ledger(run, log), patience)
            overlay = config.cells.overlay == "auto" and sandbox.level.prevented and not overlay_works(str(place))
            writer = self._connected if config.forge.kind != "local" else None
            self._world = World(self.repo, door, team, place, Watchdog(), overlay, writer)
        return self._world

    def _connected(self) -> Writer:
        """Once, by whoever needs it first. Raises OrchgitError."""
        world = self.world
        with self._connecting:
            if self._writer is None:
                config = world.agents.config.forge
                place = at_forge(self.repo, config, lambda said: self._progress("forge", said), self._leaving)
                self._writer = Writer(place, world.door, self.repo.root, self.runner.log)
            return self._writer

    def poller(self, tell: Callable[[str], None]) -> Poller | None:
        """Who hears what people say on the forge; None where nobody is asked there. Raises OrchgitError."""
        settings = self.runner.run.settings
        asks = bool(settings.issue) and settings.plan == "comment"
        if settings.forge == "local" or not (asks or self.runner.run.by_pr):
            return None
        log = self.runner.log
        ear = Ear(self._connected().forge, tell)
        return Poller(ear, lambda: self.runner.run, lambda d: log.submit(runner.message_of(d)), tell)

    def push_log(self) -> None:
        """The end of the log, where its beginning went with the pull requests. Raises OrchgitError."""
        run, door = self.runner.run, self.world.door
        commit = door.ref(publish.RUNS + run.id)
        if run.by_pr and commit:
            forge = self._connected().forge
            publish.send(door, self.repo.root, forge.remote, {publish.RUNS + run.id: commit}, forge.push_env())

    def clear(self) -> tuple[str, ...]:
        """What the engine before this one left; see recovery."""
        return recovery.clear(self.world.door, self.runner.log, self.world.state, self.runner.run)

    def close(self) -> None:
        self._leaving.set()
        if self._world is not None:
            self.runner.interrupt()
            self._world.watchdog.close()
            self._world.door.close()
            # A run that failed keeps its cells: nothing was set aside there.
            if self.runner.run.phase in ("completed", "aborted") and self._world.state.exists():
                cells.remove(self._world.state)
        self.runner.close()


def plan_problems(
    plan: Plan, members: Iterable[Member], config: Config, door: Door, base: str
) -> tuple[Problem, ...]:  # fmt: skip
    """All that keeps a plan from being run on the commit `base`: of itself, then for the kernel that is to hold it."""
    percent = config.sandbox.precision
    return problems(plan, members) or (imprecise(plan, trees.files(door, base), percent) if percent else ())


def confine(config: Config, allow_unsandboxed: bool) -> tuple[Sandbox, Level]:
    """What this configuration asks for. OrchgitError (UNAVAILABLE) where the machine gives less, unless allowed."""
    sandbox, level = best(allow_unsandboxed, config.sandbox.level)
    if not allow_unsandboxed:
        require_networks(level, config.network.asked())
    return sandbox, level


def at_forge(
    repo: UserRepo, config: ForgeConfig, tell: Callable[[str], None], stop: threading.Event
) -> Forge:  # fmt: skip
    """The configured forge. Raises OrchgitError where there is none to this repository, or no token."""
    return connect(config.kind, repo.root, os.environ, remote=config.remote, tell=tell, stop=stop)


def _outside(repo: UserRepo, config: Config, issue: Issue, ship: ShipMode) -> tuple[Config, str, list[str]]:
    """What the run will need of a forge is looked at before it begins: the configuration with the very remote, the
    repository there, and what is worth saying."""
    wanted = [w for w, on in (('[ship] mode = "pr"', ship == "pr"), ("plan", config.forge.plan == "comment")) if on]
    if config.forge.kind == "local":
        if not wanted:
            return config, "", []
        what = '[ship] mode = "pr"' if ship == "pr" else '[forge] plan = "comment"'
        raise OrchgitError(
            Kind.USAGE, f"{what} wants a forge", "none is configured: nothing leaves this machine",
            f'set kind = "github" in [forge] of {CONFIG_PATH}',
        )  # fmt: skip
    if ship == "pr" and not repo.branch:
        raise OrchgitError(
            Kind.USAGE, "there is no branch to open a pull request into", "HEAD is detached",
            "git switch BRANCH, or start with --ship none",
        )  # fmt: skip
    if config.forge.review == "worker" and ship != "pr":
        raise OrchgitError(
            Kind.USAGE, '[forge] review = "worker" wants pull requests', "",
            f'set mode = "pr" in [ship] of {CONFIG_PATH}',
        )  # fmt: skip
    remote = issue.remote or config.forge.remote
    config = config.model_copy(update={"forge": config.forge.model_copy(update={"remote": remote})})
    if not wanted:
        return config, "", []
    forge = at_forge(repo, config.forge, lambda said: None, threading.Event())
    forge.ready()
    said = [] if issue.number else ["the issue is a file: nothing is written on an issue"]
    config = config.model_copy(update={"forge": config.forge.model_copy(update={"remote": forge.remote})})
    return config, forge.place, said


def begin(
    repo: UserRepo,
    issue: Issue,
    options: Options,
    listeners: tuple[runner.Listener, ...],
    progress: Progress,
    plan: Plan | None = None,
) -> tuple[Session, list[str]]:
    """A new run on this issue; and what is worth saying aloud. Nothing is written before all of it is known to fit.

    `plan`: one that a person brought along, in place of the orchestrator's.
    """
    for name, hint in (("refs/heads/orchgit", "git branch -m orchgit NAME"), ("refs/orchgit", "git update-ref -d")):
        if Door(repo.common, repo.object_format).ref(name):
            raise OrchgitError(Kind.USAGE, f"there is a ref {name}", "a run needs that name as a folder", hint)
    if not repo.head:
        raise OrchgitError(
            Kind.USAGE, "this repository has no commit yet", "a run is built on one",
            "git add -A && git commit -m 'first commit'",
        )  # fmt: skip
    version = git_version()
    config = load_config(repo.root, os.environ)
    if options.playbook:
        scripted = config.scripted.model_copy(update={"playbook": str(Path(options.playbook).absolute())})
        config = config.model_copy(update={"scripted": scripted})
    # Frozen as a path: resume must find the cells, whatever the environment says by then.
    place = config.cells.model_copy(update={"directory": str(state_home(config, os.environ))})
    config = config.model_copy(update={"cells": place})
    if config.log.sign:
        signatures.sign(b"", config.log.sign)  # now, and not after the first merge
    people = roster.load(repo.root, config)
    chosen, said = choose(people.members, config, options)
    _priced(chosen, config)
    config, place_there, about_forge = _outside(repo, config, issue, options.ship or config.ship.mode)
    said += about_forge
    settings = config.settings(
        approval=options.approval, ship=options.ship, repository=place_there, issue=issue.number
    )  # fmt: skip
    door = Door(repo.common, repo.object_format)
    if settings.ship == "merge":
        if not repo.branch:
            raise OrchgitError(
                Kind.USAGE, "there is no branch to ship to", "HEAD is detached",
                "git switch BRANCH, or start with --ship none",
            )  # fmt: skip
        why = observe(door, repo.branch).why
        said += [f"as it is now, shipping would stop at the end: {why}"] if why else []
    sandbox, level = confine(config, options.allow_unsandboxed)
    loose = [role for role, network in config.network.asked().items() if level.reach(network) != network]
    said += [f"the network is open here, whatever [network] says, for: {', '.join(loose)}"] if loose else []
    used = {m.member.backend for m in chosen}
    inside = {name for name in used if agents.backend(name).needs(config.options(name)).network == "open"}
    if inside and not level.secrets:
        said.append(
            f"the sandbox here ({level.name}) hides nothing from reading: what {', '.join(sorted(inside))} gets as its "
            "credential, every agent of this run can read"
        )
    said = [*people.warnings, *said]
    wrong = plan_problems(plan, [m.member for m in chosen], config, door, repo.head) if plan else ()
    if wrong:
        listed = "\n".join(map(str, wrong))
        raise OrchgitError(Kind.NO, "this plan cannot be run", listed, "mend it; orchgit plan --check FILE looks again")
    name = new_run_name()
    log = recovery.birth(repo.common, repo.root, name)
    session = Session(repo, log, listeners, progress, (sandbox, level))
    link_runs(repo, name)
    user = e.Actor("human", user_name())
    started = e.RunStarted(
        e.DECIDER, repo.head, repo.branch, repo.object_format, TOOL, f"git/{version}",
        f"python/{platform.python_version()}", log.put(freeze(config, chosen)),
        settings, tuple(m.member for m in chosen),
        f"{level.name}: {level.detail}", level.prevented, any(m.member.backend == "scripted" for m in chosen),
    )  # fmt: skip
    title = issue.title[:300]
    read = e.IssueRead(issue.source[:300], title, log.put(issue.text.encode()))
    # The base is pinned before the log names it: a gc of the user's must not take it from under the cells.
    door.swap([(f"refs/orchgit/base/{name}", repo.head, None)], "orchgit: base of a run")
    door.barrier()
    drafts = [e.Draft(started, user), e.Draft(read, user)]
    if plan:
        drafts.append(e.Draft(e.PlanProposed(1, e.plan_digest(plan), plan), user))
    session.runner.record(*drafts)
    return session, said


def reopen(
    repo: UserRepo, store: Store, listeners: tuple[runner.Listener, ...], progress: Progress,
    *, allow_unsandboxed: bool = False,
) -> Session:  # fmt: skip
    """Go on with a run: the lock, the torn tail, and the note that it was resumed."""
    session = Session(repo, Log(store.path), listeners, progress)
    run = session.runner.run
    if run.started is None:
        session.close()
        raise OrchgitError(
            Kind.USAGE, f"run {store.run} never started", "its log is empty", "orchgit start ISSUE.md"
        )  # fmt: skip
    try:
        session.confined = confine(thaw(store.blob(run.started.config))[0], allow_unsandboxed)
    except OrchgitError:
        session.close()
        raise
    level = session.confined[1]
    if run.started.sandboxed and not level.prevented and not allow_unsandboxed:
        session.close()
        raise OrchgitError(
            Kind.UNAVAILABLE, "this run was started under a sandbox that is not here now", level.detail,
            f"orchgit resume {store.run} --allow-unsandboxed, if you accept less",
        )  # fmt: skip
    try:
        debris = session.clear()
        if not run.over:
            resumed = e.RunResumed(
                TOOL, session.runner.log.torn, f"{level.name}: {level.detail}", level.prevented, debris
            )
            session.runner.record(e.Draft(resumed, e.Actor("human", user_name())))
    except BaseException:
        session.close()
        raise
    return session


def finish(repo: UserRepo, store: Store) -> None:
    """What is left to do of a run that is over, should its engine have died at the very end. Twice does nothing."""
    run = runner.load(store)
    if run.started is None:
        return
    config, _ = thaw(store.blob(run.started.config))
    state = state_home(config, os.environ) / cells.repository_id(repo.common) / run.id
    left = run.phase in ("completed", "aborted") and state.exists()
    if not (left or publish.due(run)):
        return
    log = Log(store.path)
    door = Door(repo.common, repo.object_format, owner=run.id)
    try:
        ended = runner.Runner(log)
        recovery.clear(door, log, state, ended.run)
        if publish.due(ended.run):
            ended.publish(door, config.log)
    finally:
        door.close()
        log.close()
