"""The programs that both engines must treat alike: small, each a sequence of steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

# Every command notes in the diary what it does; the diary is named by the environment, so that
# no machine's path is in a program, nor in what is recorded of it.
PRELUDE = """
import pulumi
from pulumi import ResourceOptions as Options
from pulumi_command.local import Command

def note(words):
    return f"echo '{words}' >> $DIARY"

def thing(name, opts=None, label=None, **inputs):
    for verb in ("create", "delete"):
        inputs.setdefault(verb, note(f"{verb} {label or name}"))
    return Command(name, opts=opts, **inputs)

class Part(pulumi.ComponentResource):
    def __init__(self, kind, name, opts=None):
        super().__init__(f"tried:index:{kind}", name, None, opts)

"""


@dataclass(frozen=True)
class Step:
    """One run of an engine; without a program it is the one of the step before."""

    verb: Literal["up", "preview", "destroy"]
    program: str | None = None
    # Whether it must fail, or by which engine alone.
    fails: bool | Literal["by_cli"] = False
    # By name, as `agreement_record.short` has it.
    replace: tuple[str, ...] = ()
    # Only the CLI knows the option.
    continue_on_error: bool = False
    # What happens to the checkpoint beforehand.
    edit: Callable[[dict[str, Any]], None] | None = None


@dataclass(frozen=True)
class Program:
    name: str
    steps: tuple[Step, ...]
    config: Mapping[str, str] = field(default_factory=dict)
    # Labels whose order counts although their resources do not build on each other.
    ordered: tuple[str, ...] = ()


def up(program: str | None = None, **more: Any) -> Step:
    return Step("up", program, **more)


def preview(program: str | None = None, **more: Any) -> Step:
    return Step("preview", program, **more)


def destroy(program: str | None = None, **more: Any) -> Step:
    return Step("destroy", program, **more)


def _of(name: str, *steps: Step, ordered: tuple[str, ...] = (), **config: str) -> Program:
    return Program(name, steps, {f"tried:{k}": v for k, v in config.items()}, ordered)


# --- Inputs that change ---

_TWO = """
a = thing("a", environment={"V": "%s"}, update=note("update a"))
b = thing("b", stdin=a.stdout, update=note("update b"))
pulumi.export("b", b.stdout)
"""
_NO_UPDATE = 'thing("a", environment={"V": "%s"})'
_CHAIN = """
last = thing("c0", create=note("create c0") + "; echo %s", update=note("update c0") + "; echo %s")
for i in range(1, 12):
    last = thing(f"c{i}", stdin=last.stdout, create=note(f"create c{i}") + "; cat",
                 update=note(f"update c{i}") + "; cat")
pulumi.export("end", last.stdout)
"""

_INPUTS = (
    _of("create", preview(_TWO % 1), up(), destroy()),
    _of("no-op", up(_TWO % 1), preview(), up()),
    _of("update with update", up(_TWO % 1), preview(_TWO % 2), up()),
    _of("update without update runs create", up(_NO_UPDATE % 1), preview(_NO_UPDATE % 2), up()),
    _of(
        "change of delete only",
        up('thing("a", update=note("update a"))'),
        up('thing("a", update=note("update a"), delete=note("delete a otherwise"))'),
        destroy(),
    ),
    _of(
        "change of create only",
        up('thing("a", update=note("update a"))'),
        up('thing("a", update=note("update a"), create=note("create a otherwise"))'),
        up('thing("a", create=note("create a otherwise"))'),
    ),
    _of(
        "environment",
        up('thing("a", environment={"A": "1", "B": "2"}, create=note("create a $A") + "; env | grep ^[AB]= | sort")'),
        up('thing("a", environment={"B": "3"}, create=note("create a $A") + "; env | grep ^[AB]= | sort")'),
        up('thing("a", create=note("create a $A") + "; echo bare")'),
    ),
    _of(
        "stdin",
        up('thing("a", stdin="one\\n", create=note("create a") + "; cat")'),
        up('thing("a", stdin="two\\n", create=note("create a") + "; cat")'),
        up('thing("a", create=note("create a") + "; cat")'),
        up('thing("a", stdin="", create=note("create a") + "; cat")'),
    ),
    _of(
        "null inputs and empty ones",
        up('thing("a", environment={}, triggers=[], dir=None, interpreter=None)'),
        up('thing("a")'),
        up('thing("a", environment={}, triggers=[])'),
    ),
    _of(
        "no scripts at all",
        up('a = Command("a", environment={"V": "1"})\npulumi.export("a", a.stdout)'),
        up('a = Command("a", environment={"V": "2"})\npulumi.export("a", a.stdout)'),
        up('a = Command("a", update=note("update a"))\npulumi.export("a", a.stdout)'),
        destroy(),
    ),
    _of("long chain", up(_CHAIN % (1, 1)), preview(_CHAIN % (1, 2)), up(), destroy()),
    _of(
        "change that stops in the middle of a chain",
        up("""
            a = thing("a", environment={"V": "1"})
            b = thing("b", stdin=a.stdout.apply(lambda text: text[:0]))
            thing("c", stdin=b.stdout)
        """),
        preview("""
            a = thing("a", environment={"V": "2"})
            b = thing("b", stdin=a.stdout.apply(lambda text: text[:0]))
            thing("c", stdin=b.stdout)
        """),
        up(),
    ),
)  # fmt: skip

# --- Replacement ---

_TRIGGERED = """
a = thing("a", triggers=[%s], opts=Options(delete_before_replace=%s))
pulumi.export("a", a.stdout)
"""
_DEPENDENTS = """
a = thing("a", triggers=["%s"], opts=Options(delete_before_replace=%s))
data = thing("data", stdin=a.stdout)
same_id = thing("same_id", environment={"ID": a.id})
forced = thing("forced", triggers=[a.id])
beyond = thing("beyond", triggers=[forced.id])
waits = thing("waits", opts=Options(depends_on=[a]))
below = thing("below", opts=Options(parent=a))
"""
_CHAIN_FIRST = """
first = dict(opts=Options(delete_before_replace=True))
a = thing("a", triggers=[%s], **first)
b = thing("b", triggers=[a.id], **first)
c = thing("c", triggers=[b.id], **first)
d = thing("d", triggers=[c.id, a.id], **first)
thing("free", **first)
"""

_REPLACEMENT = (
    _of("triggers replace", up(_TRIGGERED % (1, False)), preview(_TRIGGERED % (2, False)), up(), up()),
    _of(
        "delete before replace",
        up(_TRIGGERED % (1, True)),
        preview(_TRIGGERED % (2, True)),
        up(),
        up(),
    ),
    _of(
        "delete before replace switched",
        up(_TRIGGERED % (1, True)),
        up(_TRIGGERED % (1, False)),
        up(_TRIGGERED % (2, False)),
        up(_TRIGGERED % (3, True)),
    ),
    _of(
        "triggers of all kinds",
        *(
            up(_TRIGGERED % (kinds, True))
            for kinds in (
                '1, "1"', '"1", 1', 'False','0','1','True','True, None', 'True', '{"a": [1.5, None]}', '{"a": [1.5]}',
                '[], {}', '"Grüße"',
            )
        ),
    ),
    _of("triggers come and go", *(up(f'thing("a"{t})') for t in ("", ", triggers=[1]", ""))),
    _of(
        "dependents of a replacement",
        up(_DEPENDENTS % (1, False)),
        preview(_DEPENDENTS % (2, False)),
        up(),
        up(),
    ),
    _of(
        "dependents of one deleted before it is replaced",
        up(_DEPENDENTS % (1, True)),
        preview(_DEPENDENTS % (2, True)),
        up(),
        up(),
    ),
    _of(
        "chain of delete before replace",
        up(_CHAIN_FIRST % 1),
        preview(_CHAIN_FIRST % 2),
        up(),
        destroy(),
    ),
    _of(
        "dependent that goes with a replacement",
        up(_TRIGGERED % (1, True) + 'thing("b", triggers=[a.id])'),
        preview(_TRIGGERED % (2, True)),
        up(),
    ),
    _of(
        "replaced and changed at once",
        up('thing("a", triggers=[1], environment={"V": "1"}, delete=note("delete a 1"))'),
        up('thing("a", triggers=[2], environment={"V": "2"}, delete=note("delete a 2"))'),
        destroy(),
    ),
    _of(
        "replace by urn",
        up(_DEPENDENTS % (1, True)),
        preview(replace=("a",)),
        up(replace=("a",)),
        up(replace=("data", "waits")),
        up(),
    ),
    _of(
        "replace by urn what changes too",
        up('thing("a", environment={"V": "1"})\nthing("b")'),
        up('thing("a", environment={"V": "2"})\nthing("b")', replace=("a", "b")),
    ),
)  # fmt: skip

# --- Failure: whatever fails is alone or the last, so that the CLI's own haste does not show ---

_MIDDLE = """
a = thing("a")
b = thing("b", stdin=a.stdout, create=note("create b") + "; %s")
c = thing("c", stdin=b.stdout)
thing("d", opts=Options(depends_on=[c]))
thing("below", opts=Options(parent=b))
"""
_UPDATE = """
a = thing("a", environment={"V": "%s"}, update=note("update a") + "; %s")
b = thing("b", stdin=a.stdout, environment={"V": "%s"})
pulumi.export("v", "v")
"""
_DELETE = """
a = thing("a")
b = thing("b", stdin=a.stdout, delete=note("delete b") + "; %s")
c = thing("c", stdin=b.stdout)
"""
_HALF = """
a = thing("a", triggers=[%s], create=note("create a") + "; %s",
          opts=Options(delete_before_replace=%s))
b = thing("b", triggers=[a.id])
"""
_ALONE = """
a = thing("a", triggers=[%s], create=note("create a") + "; %s",
          opts=Options(delete_before_replace=True))
"""

_FAILURE = (
    _of(
        "failing create and its dependents",
        up(_MIDDLE % "exit 3", fails=True),
        preview(),
        up(fails=True),
        up(_MIDDLE % "true"),
        destroy(),
    ),
    _of(
        "failing create is destroyed",
        up(_MIDDLE % "exit 3", fails=True),
        destroy(),
    ),
    _of(
        "failing update then fixed",
        up(_UPDATE % (1, "true", 1)),
        up(_UPDATE % (2, "exit 4", 2), fails=True),
        up(_UPDATE % (2, "true", 2)),
    ),
    _of(
        "failing update then taken back",
        up(_UPDATE % (1, "true", 1)),
        up(_UPDATE % (2, "exit 4", 2), fails=True),
        up(_UPDATE % (1, "true", 1)),
    ),
    _of(
        "failing delete of a removed resource",
        up(_DELETE % "exit 5"),
        up("", fails=True),
        up(_DELETE % "exit 5"),
        up(_DELETE % "true"),
        up(""),
    ),
    _of(
        "failing delete at a destroy",
        up(_DELETE % "exit 5"),
        destroy(fails=True),
        up(_DELETE % "true"),
        destroy(),
    ),
    _of(
        "failing delete of the replaced",
        up('thing("a", triggers=[1], delete=note("delete a") + "; exit 6")'),
        up('thing("a", triggers=[2])', fails=True),
        up(fails=True),
        up('thing("a", triggers=[3])', fails=True),
        destroy(fails=True),
    ),
    _of(
        "failing delete before a replacement",
        up(_TRIGGERED.replace("opts", 'delete=note("delete a") + "; exit 7", opts') % (1, True)),
        up(_TRIGGERED % (2, True), fails=True),
        up(_TRIGGERED % (1, True)),
        up(_TRIGGERED % (2, True)),
    ),
    _of(
        "failing create in a replacement",
        up(_HALF % (1, "true", False)),
        up(_HALF % (2, "exit 8", False), fails=True),
        up(_HALF % (2, "true", False)),
    ),
    _of(
        "failing create after a delete before replace",
        up(_HALF % (1, "true", True)),
        up(_HALF % (2, "exit 8", True), fails=True),
        preview(),
    ),
    _of(
        "failing create after a delete before replace then fixed",
        up(_ALONE % (1, "true")),
        up(_ALONE % (2, "exit 8"), fails=True),
        preview(_ALONE % (2, "true")),
        up(),
        destroy(),
    ),
    _of(
        "failing create after a delete before replace then taken back",
        up(_ALONE % (1, "true")),
        up(_ALONE % (2, "exit 8"), fails=True),
        up(_ALONE % (1, "true")),
    ),
    _of(
        "failing create after a delete before replace then destroyed",
        up(_HALF % (1, "true", True)),
        up(_HALF % (2, "exit 8", True), fails=True),
        destroy(),
    ),
    _of(
        "failing create after a delete before replace then removed",
        up(_HALF % (1, "true", True)),
        up(_HALF % (2, "exit 8", True), fails=True),
        up('thing("other")'),
    ),
    _of(
        "nothing is deleted after a failure",
        up('thing("old")\na = thing("a", triggers=[1])\npulumi.export("x", 1)'),
        up(
            'a = thing("a", triggers=[2])\nthing("bad", create="exit 1", stdin=a.stdout)\n'
            'pulumi.export("x", 1)',
            fails=True,
        ),
        preview('thing("a", triggers=[2])'),
        up(),
    ),
    _of(
        "the program fails",
        up('a = thing("a")\npulumi.export("a", a.stdout)'),
        up(
            'gone = thing("gone")\n'
            'a = thing("a", environment={"V": "2"}, opts=Options(depends_on=[gone]))\n'
            'pulumi.export("a", a.stdout.apply(lambda _: 1 / 0))',
            fails=True,
        ),
        up('a = thing("a", environment={"V": "2"})\npulumi.export("a", a.stdout)'),
    ),
    _of(
        "what cannot start",
        up('thing("a", interpreter=["/no/such/shell"])', fails=True),
        up('thing("a", dir="no-such-folder")', fails=True),
        up('thing("a", create="kill -9 $$")', fails=True),
    ),
)  # fmt: skip

# --- What comes, goes and is called otherwise ---

_TREE = """
outer = Part("Outer", "outer")
inner = Part("Inner", "inner", Options(parent=outer))
leaf = thing("leaf", create=note("create leaf") + "; echo %s", opts=Options(parent=inner))
twin = thing("twin", opts=Options(parent=inner, depends_on=[leaf]))
inner.register_outputs({"colour": leaf.stdout, "list": [1, None, {"leaf": leaf.stdout}]})
outer.register_outputs({"%s": inner.urn.apply(lambda urn: urn.split("::")[-1])})
thing("after", opts=Options(depends_on=[outer]))
"""
_LAYERS = """
a = thing("a")
b = thing("b", stdin=a.stdout)
c = thing("c", opts=Options(depends_on=[b]))
d = thing("d", environment={"X": pulumi.Output.all(a.id, c.stdout).apply(str)})
e = thing("e", opts=Options(parent=b))
f = thing("f", triggers=[d.urn])
"""

_SHAPE = (
    _of("removed resource", up(_TWO % 1), preview(_TWO.split("b = ", 1)[0] % 1), up()),
    _of("removed chain", up(_LAYERS + 'thing("stays")'), preview('thing("stays")'), up()),
    _of("renamed resource", up('thing("old")'), preview('thing("new")'), up(), ordered=("old", "new")),
    _of(
        "same name of another type or parent",
        up("""
            Part("One", "a")
            Part("Two", "a")
            p, q = Part("One", "p"), Part("One", "q")
            thing("a", label="a-alone")
            thing("a", label="a-in-p", opts=Options(parent=p))
            b = thing("b")
            thing("a", label="a-in-b", opts=Options(parent=b))
        """),
        up("""
            Part("Two", "a")
            p, q = Part("One", "p"), Part("Two", "q")
            thing("a", label="a-in-q", opts=Options(parent=q))
            b = thing("b")
            thing("a", label="a-in-b", opts=Options(parent=b))
        """),
        destroy(),
    ),
    _of("nested components", up(_TREE % ("green", "x")), up(), up(_TREE % ("blue", "y")), destroy()),
    _of(
        "component removed with its children",
        up(_TREE % ("green", "x") + 'thing("stays")'),
        preview('thing("stays")'),
        up(),
    ),
    _of(
        "component without outputs",
        up('part = Part("Empty", "part")\nthing("a", opts=Options(parent=part))'),
        up('part = Part("Empty", "part")\nthing("a", opts=Options(parent=part))\npart.register_outputs({})'),
        up('part = Part("Empty", "part")\npart.register_outputs({"n": None, "e": [], "x": 1})'),
        up('part = Part("Empty", "part")\npart.register_outputs({"x": {}})'),
        up('part = Part("Empty", "part")'),
    ),
    _of(
        "component depended on",
        up("""
            part = Part("Box", "part")
            a = thing("a", opts=Options(parent=part))
            other = Part("Box", "other", Options(depends_on=[part]))
            b = thing("b", opts=Options(parent=other))
            thing("c", opts=Options(depends_on=[other]))
        """),
        destroy(),
    ),
    _of("destroy order", up(_LAYERS), destroy(), up(), destroy()),
    _of(
        "moved dependency",
        up('a = thing("a")\nb = thing("b")\nthing("c", opts=Options(depends_on=[a]))'),
        up('a = thing("a")\nb = thing("b")\nthing("c", opts=Options(depends_on=[b]))'),
        up('a = thing("a")\nb = thing("b")\nthing("c", opts=Options(depends_on=[b], parent=a))'),
    ),
    _of(
        "dependency turned round",
        up('a = thing("a")\nthing("b", opts=Options(depends_on=[a]))'),
        up('b = thing("b")\nthing("a", opts=Options(depends_on=[b]))'),
        destroy(),
    ),
    _of(
        "output dependencies through apply",
        up("""
            a, b = thing("a", create="echo x"), thing("b", create="echo y")
            both = pulumi.Output.all(a.stdout, b.stdout).apply("".join)
            c = thing("c", environment={"BOTH": both, "A": pulumi.Output.concat("<", a.stdout, ">")})
            d = thing("d", stdin=c.environment.apply(lambda env: env["A"]),
                      triggers=[both.apply(len), both])
            pulumi.export("d", d.stdin)
        """),
    ),
    _of("everything goes", up(_TWO % 1), up(""), up(_TWO % 1), destroy(), destroy()),
)  # fmt: skip

# --- Options ---

_OPTIONS = (
    _of(
        "protect",
        up('thing("a", opts=Options(protect=True))'),
        up("", fails=True),
        destroy(fails=True),
        up('thing("a")'),
        up(""),
    ),
    _of(
        "protect against a replacement",
        up('thing("a", triggers=[1], opts=Options(protect=True))'),
        up('thing("a", triggers=[2], opts=Options(protect=True))', fails=True),
        up('thing("a", triggers=[2])'),
    ),
    _of(
        "protect against a destroy of the others",
        up('a = thing("a")\nb = thing("b", stdin=a.stdout, opts=Options(protect=True))\nthing("c", stdin=b.stdout)'),
        destroy(fails=True),
    ),
)  # fmt: skip

# --- What the scripts see and say ---

_SEEN = """
seen = "[$PULUMI_COMMAND_STDOUT|$PULUMI_COMMAND_STDERR]"
thing("a", create="echo out; echo err >&2", environment={"V": "%s"}, add_previous_output_in_env=%s,
      update=f'echo "update a {seen}" | tee -a $DIARY; echo warned >&2',
      delete=f'echo "delete a {seen}" >> $DIARY')
"""
_BIG = """
a = thing("a", create="i=0; while [ $i -lt 4000 ]; do echo %s-0123456789012345678901234567890123456789012; "
          "i=$((i+1)); done", add_previous_output_in_env=%s, environment={"V": "%s"}, logging="none")
pulumi.export("size", a.stdout.apply(len))
"""

_SCRIPTS = (
    _of("previous output", up(_SEEN % (1, None)), up(_SEEN % (2, None)), up(_SEEN % (3, True)), destroy()),
    _of("no previous output", up(_SEEN % (1, False)), up(_SEEN % (2, False)), destroy()),
    _of("previous output at a replacement",
        up(_SEEN.replace("create=", "triggers=[1], create=") % (1, None)),
        up(_SEEN.replace("create=", "triggers=[2], create=") % (1, None))),
    _of(
        "dir",
        up('thing("a", create="pwd; echo x > here", delete="rm here; " + note("delete a"), dir="sub")\nthing("b", create="pwd")'),
        up('thing("a", create="pwd; test ! -e here", delete="rm ../sub/here; " + note("delete a"), dir=".")'),
        destroy(),
    ),
    _of(
        "interpreter",
        up('thing("a", interpreter=["python3", "-c"], create="print(6 * 7)", delete="print()")'),
        up('thing("a", interpreter=["/bin/sh", "-euc"], create="echo $0 $-", delete="true")'),
        up('thing("a", interpreter=["/bin/cat"], create="/dev/null", delete="/dev/null")'),
        destroy(),
    ),
    _of(
        "logging",
        up("""
            for kind in ("stdout", "stderr", "stdoutAndStderr", "none"):
                thing(kind, logging=kind, create="echo out; echo err >&2")
        """),
    ),
    _of("big stdout", up(_BIG % (1, False, 1)), up(_BIG % (2, False, 1)), destroy()),
    _of("big stdout does not fit the environment", up(_BIG % (1, True, 1)), up(_BIG % (1, True, 2), fails=True), destroy(fails=True)),
    _of("big stdin", up('a = thing("a", stdin="0123456789" * 20000, create="wc -c")\npulumi.export("a", a.stdout)')),
    _of(
        "unicode",
        up("""
            a = thing("grüße-線-🚦", stdin="naïve 🚦\\u2028 \\u0007", create="cat; " + note("create grüße-線-🚦"))
            thing("b", environment={"EMOJI": a.stdout, "ÄÖ": "ü"}, create="printf %s \\"$EMOJI\\"")
            pulumi.export("ключ", {"🚦": a.stdout})
        """),
        up(),
        destroy(),
    ),
    _of(
        "quotes and markup in text",
        up("""
            a = thing("a", stdin='"<a & b> \\\\ \\\\n \\t\\'', create="cat")
            pulumi.export("<&>", a.stdout)
        """),
        up(),
    ),
    _of(
        "trailing newlines",
        up("""
            for name, text in {"none": "x", "one": "x\\\\n", "two": "x\\\\n\\\\n", "only": "\\\\n",
                               "return": "x\\\\r\\\\n", "space": " x \\\\n", "lead": "\\\\n\\\\nx"}.items():
                thing(name, create=f"printf '{text}'; printf '{text}' >&2")
        """),
    ),
)  # fmt: skip

# --- Outputs, previews and configuration ---

_OUTPUTS = """
a = thing("a", create="echo x")
pulumi.export("null", None)
pulumi.export("true", True)
pulumi.export("integer", 7)
pulumi.export("big", 12345678901)
pulumi.export("float", 2.5)
pulumi.export("tiny", 1e-9)
pulumi.export("text", "")
pulumi.export("list", [1, None, [], {}, "x", [a.stdout]])
pulumi.export("map", {"b": {"c": a.stdout, "n": None}, "a": []})
pulumi.export("later", a.stdout.apply(lambda x: {"x": x, "n": [x] * 2}))
pulumi.export("none later", a.stdout.apply(lambda _: None))
"""
_DERIVED = """
a = thing("a", create="echo %s", update="echo %s")
b = thing("b", stdin=a.stdout, create="cat")
c = thing("c", environment={"KNOWN": a.create, "NOT": b.stdout})
d = thing("d", triggers=[a.stdout])
pulumi.export("known", a.create)
pulumi.export("a", a.stdout)
pulumi.export("from b", pulumi.Output.concat(b.stdout, "!"))
pulumi.export("part", {"known": 1, "not": [c.stderr, a.stderr]})
"""

_REST = (
    _of(
        "stack outputs",
        preview(_OUTPUTS),
        up(),
        up(),
        up('a = thing("a", create="echo x")\npulumi.export("map", {"b": None})\npulumi.export("list", a.stdout)'),
        up('a = thing("a", create="echo x")'),
    ),
    _of("unknowns in a preview", preview(_DERIVED % (1, 1)), up(), preview(), preview(_DERIVED % (1, 2)), preview(_DERIVED % (2, 2)), up()),
    _of(
        "preview of a new input",
        up('a = thing("a", create="echo x")\npulumi.export("a", a.stdout)'),
        preview('a = thing("a", create="echo x", stdin="y")\npulumi.export("a", a.stdout)'),
        preview('a = thing("a", create="echo x", delete="true")\npulumi.export("a", a.stdout)'),
        preview('a = thing("a", create="echo x", triggers=[1])\npulumi.export("a", a.stdout)'),
        preview('a = thing("a", create="echo x", opts=Options(protect=True))\npulumi.export("a", a.stdout)'),
    ),
    _of(
        "preview that fails",
        up('thing("a", opts=Options(protect=True))'),
        preview("", fails=True),
        preview("raise LookupError", fails=True),
    ),
    _of(
        "configuration",
        up("""
            config = pulumi.Config()
            thing("a", environment={"V": config.require("size")})
            pulumi.export("all", [config.get_int("size"), config.get("none"), config.require_object("map")])
            pulumi.export("where", [pulumi.get_project(), pulumi.get_stack()])
        """),
        size="3", map='{"a": [1, true, null]}',
    ),
)  # fmt: skip

# --- What is less simple ---

_DIAMOND = """
first = dict(opts=Options(delete_before_replace=True))
root = thing("root", triggers=[%(v)s], **first)
left = thing("left", triggers=[root.id], **first)
right = thing("right", triggers=[root.id])
end = thing("end", triggers=[left.id, right.id], **first)
beyond = thing("beyond", stdin=end.stdout, triggers=[root.id])
"""
_TWO_ROOTS = """
first = dict(opts=Options(delete_before_replace=True))
a = thing("a", triggers=[%(v)s], **first)
b = thing("b", triggers=[%(v)s], opts=Options(delete_before_replace=True, depends_on=[a]))
both = thing("both", triggers=[a.id, b.id])
"""
_GUARDED = """
a = thing("a", triggers=[%s], opts=Options(delete_before_replace=True))
thing("b", triggers=[a.id], opts=Options(protect=True))
"""
_IN_PART = """
part = Part("Box", "part")
a = thing("a", triggers=[%s], opts=Options(parent=part, delete_before_replace=%s))
part.register_outputs({"id": a.id})
thing("waits", opts=Options(depends_on=[part]))
thing("forced", triggers=[a.id], opts=Options(parent=part))
other = Part("Box", "other", Options(depends_on=[a]))
thing("inside", opts=Options(parent=other))
other.register_outputs({})
"""
_SCRIPT = 'thing("a", create=%r, update=%r, delete=%r, environment={"V": "%s"})'

_STATIC = """
thing("a", environment={"V": "%s"}, update="sleep 1; exit %s")
pulumi.export("v", "%s")
"""

_SUBTLE = (
    _of("diamond of replacements", up(_DIAMOND % {"v": 1}), preview(_DIAMOND % {"v": 2}), up(), destroy()),
    _of("two roots of a replacement", up(_TWO_ROOTS % {"v": 1}), preview(_TWO_ROOTS % {"v": 2}), up()),
    _of("protected dependent of a replacement", up(_GUARDED % 1), up(_GUARDED % 2, fails=True)),
    _of("replacement in a component", up(_IN_PART % (1, False)), up(_IN_PART % (2, False)), up(_IN_PART % (3, True)), destroy()),
    _of(
        "replaced while its dependent is removed",
        up(_TRIGGERED % (1, False) + 'b = thing("b", stdin=a.stdout)\nthing("c", triggers=[b.id])'),
        preview(_TRIGGERED % (2, False)),
        up(),
    ),
    _of(
        "dependent that lets go of the replaced",
        up(_TRIGGERED % (1, True) + 'thing("b", triggers=[a.id])'),
        preview(_TRIGGERED % (2, True) + 'thing("b", triggers=["own"], opts=Options(depends_on=[a]))'),
        up(),
    ),
    _of(
        "dependent declared before what it built on",
        up('a = thing("a", triggers=[1], opts=Options(delete_before_replace=True))\nthing("b", triggers=[a.id])'),
        up('b = thing("b", triggers=["own"])\na = thing("a", triggers=[2], opts=Options(delete_before_replace=True, depends_on=[b]))'),
    ),
    _of(
        "empty scripts",
        up(_SCRIPT % ("", "", "", 1)),
        up(_SCRIPT % ("", "", "", 2)),
        up(_SCRIPT % (" ", "echo x", "", 3)),
        up(_SCRIPT % ("echo create", "", "", 4)),
        destroy(),
    ),
    _of(
        "numbers",
        up('thing("a", triggers=[1.0, -0.0, 1e21, 2**53, 1e-7, 0.1, 123456789.125])'),
        up('thing("a", triggers=[1, 0, 10**21, 2**53 + 1, 0.0000001, 0.1, 123456789.125])'),
        up('thing("a", triggers=[1, 0, 10**21, 2**53 + 2, 0.0000001, 0.1, 123456789.125])'),
        up('thing("a")\npulumi.export("n", [1e100, -5, -2.5, 1e-300, 10**15, 10**16])'),
    ),
    _of(
        "previous output set by the environment",
        up('thing("a", create="echo out", update="echo $PULUMI_COMMAND_STDOUT", environment={"PULUMI_COMMAND_STDOUT": "mine"})'),
        up('thing("a", create="echo out", update="echo $PULUMI_COMMAND_STDOUT;", environment={"PULUMI_COMMAND_STDOUT": "mine"})'),
    ),
    _of(
        "logging changes",
        up('thing("a", logging="stdout", create=note("create a") + "; echo out; echo err >&2")'),
        up('thing("a", logging="none", create=note("create a") + "; echo out; echo err >&2")'),
        up('thing("a", create=note("create a") + "; echo out; echo err >&2")'),
    ),
    _of(
        "a command as a parent",
        up('a = thing("a", triggers=[1])\nb = thing("b", opts=Options(parent=a))\nthing("c", opts=Options(parent=b))'),
        up('a = thing("a", triggers=[2])\nb = thing("b", opts=Options(parent=a))\nthing("c", opts=Options(parent=b))'),
        up('a = thing("a", triggers=[3], opts=Options(delete_before_replace=True))\nb = thing("b", opts=Options(parent=a))\nthing("c", opts=Options(parent=b))'),
        up('a = thing("a", triggers=[3])'),
    ),
    _of("static outputs of a failing run", up(_STATIC % (1, 0, 1)), up(_STATIC % (2, 9, 2), fails=True)),
)  # fmt: skip

# Those that both engines must treat alike.
ALIKE = (*_INPUTS, *_REPLACEMENT, *_FAILURE, *_SHAPE, *_OPTIONS, *_SCRIPTS, *_REST, *_SUBTLE)

# --- Deliberate differences: recorded too, and each has a test of its own ---

_INDEPENDENT = """
bad = thing("bad", create=note("create bad") + "; sleep 0.5; exit 1")
needs = thing("needs", stdin=bad.stdout)
slow = thing("slow", create="sleep 1.5; " + note("create slow"))
after = thing("after", stdin=slow.stdout)
"""


def _pending(latest: dict[str, Any]) -> None:
    """As if the run had been killed while it created `a`."""
    [gone] = [r for r in latest["resources"] if r["urn"].endswith("::a")]
    latest["resources"].remove(gone)
    half = {k: v for k, v in gone.items() if k not in ("id", "outputs", "created", "modified")}
    latest["pending_operations"] = [{"resource": half, "type": "creating"}]


INDEPENDENTS = _of("independents of a failure", up(_INDEPENDENT, fails=True))
CONTINUED = _of(
    "independents of a failure, continued",
    up(_INDEPENDENT, fails=True, continue_on_error=True),
)
REMOVED = _of(
    "removed beside a failure, continued",
    up('thing("old")'),
    up('thing("bad", create="exit 1")', fails=True, continue_on_error=True),
)
CUT_OFF = _of("cut off while creating", up('thing("a")\nthing("b")'), up(edit=_pending), up())

RESUMED = _of(
    "dependents deleted before a failed replacement",
    up(_HALF % (1, "true", True)),
    up(_HALF % (2, "exit 8", True), fails=True),
    up(_HALF % (2, "true", True)),
)
BLAMED = _of(
    "failing delete of a dependent before a replacement",
    up(_TRIGGERED % (1, True) + 'thing("b", triggers=[a.id], delete="exit 7")'),
    up(_TRIGGERED % (2, True) + 'thing("b", triggers=[a.id], delete="exit 7")', fails=True),
    up(_TRIGGERED % (1, True) + 'thing("b", triggers=[a.id])'),
    up(_TRIGGERED % (2, True) + 'thing("b", triggers=[a.id])'),
)
_EXPORTED = """
a = thing("a", environment={"V": "%s"}, create="echo %s", update="sleep 1; exit %s")
pulumi.export("a", a.stdout)
pulumi.export("v", "%s")
"""
OUTPUTS = _of(
    "outputs after a failure",
    up(_EXPORTED % (1, 1, 0, 1)),
    up(_EXPORTED % (2, 1, 9, 2), fails=True),
)
IDS = _of(
    "ids in a preview",
    preview('a = thing("a", triggers=[1])\npulumi.export("a", a.id)'),
    up(),
    preview('a = thing("a", triggers=[2])\npulumi.export("a", a.id)'),
)
NO_TEXT = _of(
    "bytes that are no text",
    up('thing("a", create=note("create a") + "; printf \'\\\\377\'")', fails="by_cli"),
)

DIFFERENT = (
    INDEPENDENTS, CONTINUED, REMOVED, CUT_OFF, RESUMED, BLAMED, OUTPUTS, IDS, NO_TEXT,
)  # fmt: skip

PROGRAMS = (*ALIKE, *DIFFERENT)
