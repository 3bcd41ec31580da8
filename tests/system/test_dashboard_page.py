"""The dashboard's page in a headless Chromium, told by a server of our own what a holdfastd would tell: every state there is."""
import copy
import http.server
import json
import pathlib
import queue
import threading

import pytest

import chromium
from lab import ROOT

FILES = {"/": ("index.html", "text/html; charset=utf-8"), "/dashboard.css": ("dashboard.css", "text/css"),
         "/dashboard.js": ("dashboard.js", "text/javascript"), "/icon.svg": ("icon.svg", "image/svg+xml")}
# as src/hostd/web.c has it: read from there, so that the page is tested with the policy that it is served with
WEB = (ROOT / "src/hostd/web.c").read_text()
POLICY = "".join(s.split('"')[1] for s in WEB[WEB.index('"Content-Security-Policy'):].split("\n")[:4]).split("\\r\\n")[0].split(": ", 1)[1]
NOW = 1700000000000


def copy_of(name, host, mirror, **more):
    return {"name": name, "kind": "copy", "mirror_capable": True, "host": host, "mirror": mirror,
            "seen": {"state": "", "percent": None, "reason": ""}, "roles": [{"host": host, "role": "unpromoted"}], "why": "", "error": "",
            **more}


def overview():
    return {
        "host": "alpha", "state": "run", "version": "0", "members": 3,
        "problems": [
            {"severity": "error", "what": "delta fell silent 7 s ago: its services have left the tree", "remedy": "see whether the host is up"},
            {"severity": "warning", "what": "group orders: <b>copy3</b> is syncing", "remedy": "wait & see"}],
        "hosts": [
            {"host": "alpha", "state": "self", "address": "10.0.0.1:7480", "services": 5, "draining": ""},
            {"host": "beta", "state": "alive", "address": "10.0.0.2:7480", "services": 3, "draining": ""},
            {"host": "delta", "state": "dead", "address": "", "services": 0, "silent_ms": 7000, "draining": ""},
            {"host": "gamma", "state": "alive", "address": "10.0.0.3:7480", "services": 2, "draining": "SIP server s3"}],
        "hosts_more": 0,
        "groups": [{
            "name": "orders", "quorate": True, "phase": "running", "epoch": 7, "paused": False, "why": "",
            "primary": {"resource": "copy1", "host": "alpha", "address": "10.0.0.1"},
            "hosts": [{"host": "alpha", "subgroup": "copy1"}, {"host": "beta", "subgroup": "copy2"}, {"host": "gamma", "subgroup": "copy3"},
                      {"host": "delta", "subgroup": "copy3"}],
            "resources": [
                copy_of("copy1", "alpha", "in-sync"), copy_of("copy2", "beta", "in-sync"),
                copy_of("copy3", "gamma", "syncing", seen={"state": "syncing", "percent": 47, "reason": ""}),
                {"name": "vip", "kind": "attached", "host": "alpha", "roles": [], "why": "", "error": "start: no such interface"}]}],
        "managers": [
            manager("alpha", "primary", serves=True), manager("beta", "backup"),
            {"name": "/manager/bare", "owner": "beta", "serves": True, "unprotected_ms": 200000,
             "value": {"group": "bare", "role": "primary", "sessions": 3, "protected": 0, "peer": "", "why": "no backup", "unprotected": {"no backup": 3}}}],
        "sip": [{"name": f"s{i}", "owner": o, "value": {"state": s, "busy": i == 2, "leads": i == 1, "rows": 100 * i, "bindings": 90 * i,
                                                        "subscriptions": i, "requests_s": 10 * i, "cpu": 125}}
                for i, (o, s) in enumerate((("alpha", "live"), ("beta", "live"), ("gamma", "draining")), 1)],
    }


def manager(owner, role, serves=False):
    value = {"group": "pgvip", "role": role, "epoch": 7, "peer": "beta", "sessions": 120, "protected": 118,
             "unprotected": {"TLS": 2}, "stored": 118, "pair": "following", "why": "",
             "servers": [{"name": "copy1", "state": "primary", "sessions": 120, "lag_bytes": 0}]}
    return {"name": "/manager/pgvip", "owner": owner, **({"serves": True} if serves else {}), "value": value}


def event(kind, data):
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def note(about, name, text, at=NOW):
    return event("note", {"at": at, "about": about, "name": name, "text": text})


class Teller(http.server.ThreadingHTTPServer):
    """Serves the files, and tells each follower `first`, then what tell() is given."""
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.first, self.followers, self.refuse = [], [], False
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def tell(self, *events):
        for q in self.followers:
            for e in events:
                q.put(e)

    def cut(self):
        """The daemon is gone for a while."""
        self.tell(None)
        self.followers = []

    def end(self):
        self.cut()
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):  # pylint: disable=arguments-differ
        pass

    def head(self, status, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()

    def do_GET(self):
        if self.path == "/v1/overview/events":
            self.follow()
        elif self.path in FILES:
            name, kind = FILES[self.path]
            self.head(200, kind)
            self.wfile.write(pathlib.Path(ROOT / "src/hostd/dashboard" / name).read_bytes())
        else:
            self.head(404, "text/plain")

    def follow(self):
        if self.server.refuse:
            self.head(503, "application/json")
            return
        self.head(200, "text/event-stream")
        q = queue.Queue()
        for e in self.server.first:
            q.put(e)
        self.server.followers.append(q)
        while (data := q.get()) is not None:
            try:
                self.wfile.write(data)
            except OSError:
                return


@pytest.fixture(scope="module", name="browser")
def fixture_browser():
    with chromium.Page() as p:
        yield p


@pytest.fixture(name="server")
def fixture_server():
    s = Teller()
    yield s
    s.end()


@pytest.fixture(name="page")
def fixture_page(browser, server):
    """Told an overview with everything in it; ends without a word in the console."""
    now = browser.evaluate("Date.now()")
    server.first = [note("host", "beta", "alive", now - 60000), note("group", "orders", "copy2 is in sync", now - 50000)]
    for i in range(20):
        server.first.append(event("sample", {"at": now - 5000 * (20 - i), "about": "manager", "name": "pgvip", "owner": "alpha", "p50_ms": 0.25,
                                             "p99_ms": 1.02, "slowest_ms": 524.0 if i == 10 else 2.0, "lag_ms": 0.3 + i / 10, "sessions": 120}))
        server.first.append(event("sample", {"at": now - 5000 * (20 - i), "about": "sip", "name": "s1", "owner": "alpha", "requests_s": i, "cpu": 125}))
    server.first.append(event("overview", overview()))
    browser.console.clear()
    browser.requests.clear()
    browser.colours("light")
    browser.open(server.url)
    browser.until_text("#state", "running, 2 problems, 3 hosts")
    browser.until_text("#charts", "latency")
    yield browser
    assert browser.console == []
    assert all(u.startswith(server.url) for u in browser.requests), browser.requests
    browser.open("about:blank")


def test_what_is_wrong_is_said_first(page):
    assert page.text("main section:first-of-type h2") == "What is wrong, and what to do"
    assert page.text("#problems li.is-error") == ("Error: delta fell silent 7 s ago: its services have left the tree"
                                                  " What to do: see whether the host is up")
    assert "<b>copy3</b>" in page.text("#problems li.is-warning")  # text, not markup
    assert page.evaluate("document.title") == "(2) alpha - Holdfast"
    assert page.text("h1") == "Holdfast on alpha"


def test_nothing_is_wrong(page, server):
    server.tell(event("overview", overview() | {"problems": []}))
    page.until_text("#problems", "Nothing: no problems.")
    page.until_text("#state", "running, no problems")


def test_the_picture(page):
    assert page.evaluate("document.querySelectorAll('#picture .host').length") == 4
    hosts = page.evaluate("[...document.querySelectorAll('#picture .host')].map((g) => [...g.querySelectorAll('text')].map((t) => t.textContent))")
    assert hosts[0][:3] == ["alpha", "alive (this host)", "120 sessions, 100 SIP users"]
    assert hosts[2][:2] == ["delta", "dead, silent for 7 s"]
    assert hosts[3][1].startswith("alive, draining: SIP server s3")
    assert page.evaluate("document.querySelectorAll('#picture .mirror').length") == 2
    mirrors = page.evaluate("[...document.querySelectorAll('#picture .mirror')].map((g) => [g.querySelector('path').getAttribute('class'),"
                            " g.querySelector('text').textContent, g.querySelector('.bar')?.getAttribute('width')])")
    assert mirrors == [["arrow is-good", "in-sync", None], ["arrow is-warn", "syncing", "47"]]
    assert "reaches copy3" in page.text("#picture .group")
    label = page.evaluate("document.querySelector('#picture svg').getAttribute('aria-label')")
    assert "3 of 4 hosts shown alive; group orders running, epoch 7, primary copy1 at alpha" in label
    # nothing is drawn outside of it, and all that is drawn has a size
    outside = page.evaluate("""(() => {
        const s = document.querySelector('#picture svg').getBoundingClientRect();
        return [...document.querySelectorAll('#picture svg rect.box, #picture svg text')].filter((e) => {
            const r = e.getBoundingClientRect();
            return r.width <= 0 || r.left < s.left || r.right > s.right + 1 || r.top < s.top || r.bottom > s.bottom + 1;
        }).map((e) => e.outerHTML);
    })()""")
    assert outside == []


def test_progress_of_a_mirror(page, server):
    o = overview()
    o["groups"][0]["resources"][2]["seen"]["percent"] = 93
    server.tell(event("overview", o))
    page.until("document.querySelector('#picture .mirror .bar')?.getAttribute('width') === '93'", "the bar has grown")
    o["groups"][0]["resources"][2]["mirror"] = "in-sync"
    server.tell(event("overview", o))
    page.until("document.querySelectorAll('#picture .mirror .is-good.arrow').length === 2", "both are in sync")


def test_sessions_and_why_not(page):
    rows = page.evaluate("[...document.querySelectorAll('#sessions tbody tr')].map((r) => [...r.children].map((c) => c.textContent))")
    assert rows[0] == ["pgvip", "alpha", "primary", "120", "118 by beta, 2 not: 2 TLS", "copy1 primary (120)"]
    assert rows[1][4] == "keeps 118 sessions, following"
    assert rows[2][4] == "none protected for 200 s: no backup"


def test_sip_clients(page):
    rows = page.evaluate("[...document.querySelectorAll('#sip tbody tr')].map((r) => [...r.children].map((c) => c.textContent))")
    assert rows[0] == ["s1", "alpha", "live, leads", "100", "90", "1", "10", "13 %"]
    assert rows[1][2] == "live, overloaded"
    assert rows[2][2] == "draining"


def test_sessions_move(page, server):
    o = overview()
    o["managers"] = [manager("alpha", "backup"), manager("beta", "primary", serves=True)]
    server.tell(note("manager", "pgvip", "beta took over (failure, epoch 8)", page.evaluate("Date.now()")), event("overview", o))
    page.until("document.querySelectorAll('#picture .move').length === 1", "the move is drawn")
    assert page.text("#picture .move title") == "pgvip: 120 sessions went from alpha to beta"
    page.until_text("#news", "pgvip: beta took over (failure, epoch 8)")
    assert page.text("#events li:first-child").endswith("pgvip beta took over (failure, epoch 8)")
    assert page.evaluate("document.querySelectorAll('#charts .mark').length") > 0


def test_sessions_move_while_nobody_serves(page, server):
    o = overview()
    o["managers"] = []
    server.tell(event("overview", o))
    page.until_text("#sessions", "No holdfast-pg serves an address.")
    o["managers"] = [manager("gamma", "primary", serves=True)]
    server.tell(event("overview", o))
    page.until("document.querySelectorAll('#picture .move').length === 1", "the move is drawn")


def test_charts(page):
    heads = page.evaluate("[...document.querySelectorAll('#charts h3')].map((h) => h.textContent)")
    assert heads == ["pgvip: latency of requests", "pgvip: stalls, the slowest request", "pgvip: how far the backup is behind",
                     "SIP requests per second"]
    captions = page.evaluate("[...document.querySelectorAll('#charts figcaption')].map((h) => h.textContent)")
    assert captions[0].startswith("half within 0.25 ms") and "99 % within 1 ms" in captions[0]
    assert captions[1].startswith("slowest 2 ms, at most 524 ms at ")
    assert captions[3].startswith("s1 19 /s, at most 19 /s")
    path = page.evaluate("document.querySelector('#charts .series0').getAttribute('d')")
    assert path.count("L") == 19 and "NaN" not in path


def test_events(page):
    items = page.evaluate("[...document.querySelectorAll('#events li')].map((h) => h.textContent)")
    assert len(items) == 2 and items[0].endswith("orders copy2 is in sync") and items[1].endswith("beta alive")
    assert page.text("#news") == ""  # what was there is no news


def test_tables_for_those_who_do_not_see_the_picture(page):
    assert "delta" in page.text("#hosts tbody tr:nth-child(3)") and "dead, silent for 7 s" in page.text("#hosts tbody tr:nth-child(3)")
    assert page.text("#groups caption") == "orders: running, epoch 7"
    assert "syncing 47 %" in page.text("#groups tbody tr:nth-child(3)")
    assert "start: no such interface" in page.text("#groups tbody tr:nth-child(4)")


def test_an_empty_cluster(page, server):
    o = overview() | {"problems": [], "groups": [], "managers": [], "sip": [], "members": 1}
    o["hosts"] = o["hosts"][:1]
    server.tell(event("overview", o))
    page.until_text("#state", "running, no problems, 1 host")
    page.until_text("#groups", "This host is not in any group.")
    page.until_text("#sip", "No holdfast-sip is in the tree.")


def test_values_that_other_programs_made_up(page, server):
    """The tree is everybody's: no member has to be there, or of the type that it should have."""
    o = overview()
    o["managers"] = [{"name": "/manager/x", "owner": "nowhere", "serves": True, "value": {"role": "primary", "sessions": "many"}}]
    o["sip"] = [{"name": "<script>", "owner": "alpha", "value": {"state": "x" * 300, "rows": None, "cpu": "a"}}]
    o["groups"].append({"name": "unknown", "quorate": False, "why": "nothing is known"})
    server.tell(event("overview", o))
    page.until_text("#sip", "<script>")
    page.until_text("#groups", "unknown: nothing is known yet, not quorate: the last that is known. nothing is known")
    page.until_text("#sessions", "/manager/x")


def test_the_connection_is_lost_and_returns(page, server):
    server.refuse = True
    server.cut()
    page.until_text("#state", "Connection lost")
    assert page.evaluate("document.getElementById('main').classList.contains('old')")
    assert page.evaluate("document.querySelectorAll('#picture .host').length") == 4  # the last that was known stays
    server.refuse = False
    o = copy.deepcopy(overview()) | {"members": 9}
    server.first = [note("host", "alpha", "takes part in the cluster"), event("overview", o)]
    page.until_text("#state", "running, 2 problems, 9 hosts")
    page.until("document.querySelectorAll('#events li').length === 1", "events are told anew")
    assert not page.evaluate("document.getElementById('main').classList.contains('old')")
    page.console[:] = [c for c in page.console if "503" not in c]  # refused as it was told to be
    assert page.text("#news") == ""


def test_updates_can_be_paused(page, server):
    page.evaluate("document.getElementById('pause').focus()")
    page.enter()
    page.until_text("#state", "updates are paused")
    assert page.evaluate("document.getElementById('pause').getAttribute('aria-pressed')") == "true"
    server.tell(event("overview", overview() | {"host": "omega"}))
    page.until("model.overview.host === 'omega'", "it was heard")
    page.evaluate("render()")
    assert page.text("#host") == "on alpha"
    page.enter()
    page.until_text("#host", "on omega")
    assert page.evaluate("document.activeElement.id") == "pause"


def focused(page):
    return page.evaluate("document.activeElement.id || document.activeElement.className || document.activeElement.tagName")


def test_keyboard(page):
    """Each stop is in the order of reading, visible, and has a name; the way back is the same."""
    page.tab()
    assert focused(page) == "skip"
    page.enter()
    page.until("document.activeElement.id === 'main'", "the skip link leads to the cluster")
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    page.open(page.evaluate("location.origin") + "/")
    page.until_text("#charts", "latency")
    stops = []
    for _ in range(12):
        page.tab()
        stops.append(focused(page))
        if stops[-1] == "BODY":
            break
        assert page.evaluate("(() => { const s = getComputedStyle(document.activeElement);"
                             " return s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2; })()"), f"{stops[-1]} shows no focus"
        assert page.evaluate("(() => { const e = document.activeElement; const by = e.getAttribute('aria-labelledby');"
                             " return ((by && document.getElementById(by).textContent) || e.textContent).trim().length > 0; })()")
    assert stops[:8] == ["skip", "pause", "picture", "sessions", "sip", "events", "groups", "hosts"]
    page.tab(back=True)
    assert focused(page) in stops


def test_focus_stays_while_the_page_changes(page, server):
    page.evaluate("document.getElementById('sip').focus()")
    server.tell(event("overview", overview() | {"sip": [], "members": 4}))
    page.until_text("#state", "4 hosts")
    assert focused(page) == "sip"


def test_landmarks_and_names(page):
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate("['header', 'main', 'footer', 'h1'].every((t) => document.querySelectorAll(t).length === 1)")
    assert page.evaluate("[...document.querySelectorAll('section')].every((s) => document.getElementById(s.getAttribute('aria-labelledby')).tagName === 'H2')")
    assert page.evaluate("[...document.querySelectorAll('svg')].every((s) => s.getAttribute('role') === 'img' && s.getAttribute('aria-label').length > 10)")
    assert page.evaluate("[...document.querySelectorAll('table')].every((t) => t.caption && [...t.querySelectorAll('th')].every((h) => h.scope))")
    assert page.evaluate("document.getElementById('state').getAttribute('role')") == "status"
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))


# Of each element with text of its own: its colour against the first opaque colour behind it (WCAG 2.1, 1.4.3); of what is drawn, 3 : 1
# (1.4.11).
CONTRAST = """(() => {
    const parse = (c) => c.match(/[\\d.]+/g).map(Number);
    const lum = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ratio = (a, b) => { const [x, y] = [lum(a), lum(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
    const behind = (e) => {
        for (let p = e; p; p = p.parentElement) {
            const c = parse(getComputedStyle(p).backgroundColor);
            if (c.length < 4 || c[3] === 1) { return c; }
        }
        return parse(getComputedStyle(document.documentElement).colorScheme.includes('dark') ? 'rgb(0,0,0)' : 'rgb(255,255,255)');
    };
    const panel = (e) => { /* text in a box of the picture stands on the box */
        const box = e.closest('.host, .group')?.querySelector('.box');
        return box && e.tagName === 'text' ? parse(getComputedStyle(box).fill) : behind(e);
    };
    const bad = [];
    let n = 0;
    for (const e of document.body.querySelectorAll('*')) {
        const own = [...e.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim());
        const style = getComputedStyle(e);
        if (own && !['TITLE', 'title', 'NOSCRIPT', 'SCRIPT'].includes(e.tagName) && style.visibility !== 'hidden') {
            n++;
            const colour = parse(e instanceof SVGElement ? style.fill : style.color);
            for (const back of [panel(e), behind(e)]) {
                if (ratio(colour, back) < 4.5) { bad.push([e.tagName, e.className.baseVal ?? e.className, e.textContent.slice(0, 40), ratio(colour, back)]); }
            }
        }
        if (e.matches('svg .arrow, svg .series0, svg .series1, svg .series2, svg .frame, svg .box')) {
            n++;
            if (ratio(parse(style.stroke), behind(e)) < 3) { bad.push([e.tagName, e.className.baseVal, ratio(parse(style.stroke), behind(e))]); }
        }
    }
    return {n, bad, back: getComputedStyle(document.body).backgroundColor};
})()"""


def test_contrast(page):
    seen = set()
    for scheme in ("light", "dark"):
        page.colours(scheme)
        found = page.evaluate(CONTRAST)
        assert found["bad"] == [], scheme
        assert found["n"] > 100
        seen.add(found["back"])
    assert len(seen) == 2  # the schemes differ


def test_a_small_screen_does_not_scroll_sideways(page):
    page.call("Emulation.setDeviceMetricsOverride", width=360, height=640, deviceScaleFactor=1, mobile=False)
    try:
        assert page.evaluate("document.documentElement.scrollWidth <= 360"), "only the picture and tables may be wider, in frames of their own"
    finally:
        page.call("Emulation.clearDeviceMetricsOverride")


def test_the_policy_forbids_what_was_injected(page):
    """Were there a way to put markup in: no script of it would run."""
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">')")
    page.until_console("Content Security Policy")
    assert page.evaluate("window.ran") is None
    page.console.clear()
