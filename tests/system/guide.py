"""Reads the guides (doc/guide/*.md): their fenced blocks, marked as ```sh host=alpha,beta and so on, and between them the
directives <!-- test: ... -->, which say what the reader does or waits for in plain words."""
import re

from lab import ROOT

GUIDES = sorted((ROOT / "doc/guide").glob("*.md"))
LANGUAGES = ("sh", "conf", "sql")
FENCE = re.compile(r"^```(\S*)((?: \S+=\S+)*)$")
DIRECTIVE = re.compile(r"^<!-- test: (.*) -->$")


class Block:
    """language: of LANGUAGES, "test" (a directive) or "" (shown, not checked). marks: what stands behind it"""

    def __init__(self, guide, line, language, marks=None):
        self.guide, self.line, self.language = guide, line, language
        self.marks, self.text = marks or {}, ""

    def hosts(self):
        return self.marks.get("host", "").split(",")

    def __repr__(self):
        return f"{self.guide.name}:{self.line}"


def blocks(guide):
    """All of a guide, in order. Raises ValueError for what it does not know: nothing is left out unseen."""
    found, inside = [], None
    for number, line in enumerate(guide.read_text(encoding="utf-8").splitlines(), 1):
        if inside:
            if line == "```":
                inside = None
            else:
                inside.text += line + "\n"
        elif line.startswith("```"):
            m = FENCE.match(line)
            if not m or m[1] not in (*LANGUAGES, "text"):
                raise ValueError(f"{guide.name}:{number}: {line}")
            inside = Block(guide, number, m[1], dict(w.split("=", 1) for w in m[2].split()))
            found.append(inside)
        elif m := DIRECTIVE.match(line):
            found.append(Block(guide, number, "test"))
            found[-1].text = m[1]
    if inside:
        raise ValueError(f"{inside}: no end")
    return found


def for_host(text, host):
    """What a reader makes of it on this host: in lines that end with "# on beta: X, on gamma: Y" the value is replaced."""
    lines = []
    for line in text.splitlines():
        before, mark, comment = line.partition(" # on ")
        values = dict(w.removeprefix("on ").split(": ", 1) for w in f"on {comment}".split(", ")) if mark else {}
        if host in values:
            before, n = re.subn(r"= (\{ )?[^ {}]+", lambda m: f"= {m[1] or ''}{values[host]}", before, count=1)
            if n != 1:
                raise ValueError(line)
        lines.append(before)
    return "\n".join(lines) + "\n"
