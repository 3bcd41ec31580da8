/* The dashboard: shows what /v1/overview/events tells, and judges nothing itself. All text goes into the page as text nodes. */
"use strict";

const EVENTS_MAX = 256;
const WINDOW_MS = 10 * 60 * 1000; /* of a chart */
const MOVE_SHOWN_MS = 20 * 1000;
const AGAIN_MS = 2000;

const model = {
    overview: null,
    events: [], /* newest last */
    samples: new Map(), /* "about name" -> samples, newest last */
    moves: [], /* sessions that went from one host to another: {from, to, text, until} */
    lastServed: new Map(), /* address -> its manager entry of who served last */
    live: false,
    told: false, /* all that there was has been told on this connection: what comes is news */
    paused: false,
};
const shown = new Map(); /* what each part of the page was made of */

/* ---- making elements ---- */

function make(space, tag, attributes, ...children) {
    const e = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes || {})) {
        if (value !== null && value !== undefined) {
            e.setAttribute(name, value);
        }
    }
    e.append(...children.flat().filter((c) => c !== null && c !== undefined).map((c) => typeof c === "object" ? c : String(c)));
    return e;
}

const html = (tag, attributes, ...children) => make("http://www.w3.org/1999/xhtml", tag, attributes, ...children);
const svg = (tag, attributes, ...children) => make("http://www.w3.org/2000/svg", tag, attributes, ...children);

/* A part of the page is made anew only if what it shows has changed: readers keep their place. */
function show(id, data, build) {
    const key = JSON.stringify(data);
    if (shown.get(id) !== key) {
        shown.set(id, key);
        document.getElementById(id).replaceChildren(...[build(data)].flat());
    }
}

function table(caption, heads, rows, numbers = []) {
    return html("table", {}, html("caption", {}, caption),
        html("thead", {}, html("tr", {}, heads.map((h) => html("th", { scope: "col" }, h)))),
        html("tbody", {}, rows.map((cells) => html("tr", {}, cells.map((c, i) =>
            i === 0 ? html("th", { scope: "row" }, c) : html("td", numbers.includes(i) ? { class: "n" } : {}, c))))));
}

const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
const number = (v) => Number.isFinite(v) ? v : 0;

function clock(ms) {
    return new Date(ms).toLocaleTimeString([], { hour12: false });
}

function figure(v) {
    return v >= 100 ? String(Math.round(v)) : String(Number(v.toPrecision(2)));
}

/* ---- problems ---- */

function problems(list) {
    if (list.length === 0) {
        return html("p", { class: "good" }, "Nothing: no problems.");
    }
    return html("ul", {}, list.map((p) => html("li", { class: `is-${p.severity}` },
        html("p", {}, html("strong", { class: p.severity }, p.severity === "error" ? "Error: " : "Warning: "), p.what),
        html("p", {}, "What to do: ", p.remedy))));
}

/* ---- hosts, sessions, SIP ---- */

const HOST_STATES = {
    self: ["alive (this host)", "good"], alive: ["alive", "good"], probing: ["silent, being asked", "warn"],
    syncing: ["being read", "warn"], waiting: ["cannot be read", "warn"], dead: ["dead", "bad"], absent: ["absent", "bad"],
};

function hostState(h) {
    const [text, tone] = HOST_STATES[h.state] || [h.state, "warn"];
    const silent = h.silent_ms === undefined ? "" : `, silent for ${Math.round(h.silent_ms / 1000)} s`;
    return h.draining ? [`${text}${silent}, draining: ${h.draining}`, tone === "good" ? "warn" : tone] : [text + silent, tone];
}

function hosts(o) {
    const rows = o.hosts.map((h) => {
        const [text, tone] = hostState(h);
        return [h.host, html("span", { class: tone }, text), h.address || "-", h.services];
    });
    const more = o.hosts_more ? [html("p", {}, `and ${count(o.hosts_more, "host")} more`)] : [];
    return [table(count(o.members, "host") + " in the tree", ["Host", "State", "Address", "Services"], rows, [3]), ...more];
}

function unprotected(v) {
    return Object.entries(v.unprotected || {}).map(([why, n]) => `${n} ${why}`).join(", ");
}

function protection(m) {
    const v = m.value;
    if (m.unprotected_ms !== undefined) {
        return html("span", { class: "warn" }, `none protected for ${Math.round(m.unprotected_ms / 1000)} s: ${v.why}`);
    }
    if (!m.serves) {
        return v.role === "backup" ? `keeps ${count(number(v.stored), "session")}, ${v.pair}` : "";
    }
    const bare = number(v.sessions) - number(v.protected);
    return html("span", { class: bare ? "warn" : "good" },
        `${number(v.protected)} by ${v.peer}${bare ? `, ${bare} not: ${unprotected(v)}` : ""}`);
}

function sessions(managers) {
    if (managers.length === 0) {
        return html("p", {}, "No holdfast-pg serves an address.");
    }
    const rows = managers.map((m) => [
        m.value.group || m.name, m.owner, m.value.role, m.serves ? number(m.value.sessions) : "", protection(m),
        (m.value.servers || []).map((s) => `${s.name} ${s.state}${s.sessions ? ` (${s.sessions})` : ""}${s.lag_bytes ? ` ${s.lag_bytes} bytes behind` : ""}`).join(", "),
    ]);
    return table("Service addresses and who holds their sessions",
        ["Address", "Host", "Role", "Sessions", "Protected", "Databases, as it sees them"], rows, [3]);
}

function sip(servers) {
    if (servers.length === 0) {
        return html("p", {}, "No holdfast-sip is in the tree.");
    }
    const rows = servers.map((s) => [
        s.name, s.owner,
        html("span", { class: s.value.state === "live" && !s.value.busy ? "good" : "warn" },
            `${s.value.state}${s.value.busy ? ", overloaded" : ""}${s.value.leads ? ", leads" : ""}`),
        number(s.value.rows), number(s.value.bindings), number(s.value.subscriptions), number(s.value.requests_s),
        `${figure(number(s.value.cpu) / 10)} %`,
    ]);
    return table("SIP servers and whose home they are",
        ["Server", "Host", "State", "Users", "Bindings", "Subscriptions", "Requests/s", "CPU"], rows, [3, 4, 5, 6, 7]);
}

/* ---- groups ---- */

function copyState(group, r) {
    const primary = group.primary && group.primary.resource === r.name;
    if (primary) {
        return [group.phase === "running" ? "primary" : `primary, ${group.phase}`, group.phase === "running" ? "good" : "warn"];
    }
    if (!r.mirror_capable) {
        return ["backup", "good"];
    }
    const percent = r.seen && r.seen.percent !== null && r.seen.percent !== undefined ? ` ${r.seen.percent} %` : "";
    const tone = { "in-sync": "good", failed: "bad", diverged: "bad" }[r.mirror] || "warn";
    return [r.mirror === "none" ? "not mirrored" : r.mirror + (r.mirror === "syncing" ? percent : ""), tone];
}

function groupState(g) {
    const parts = [g.phase === "none" ? "no primary" : g.phase || "nothing is known yet"];
    if (g.epoch !== undefined) {
        parts.push(`epoch ${g.epoch}`);
    }
    if (!g.quorate) {
        parts.push("not quorate: the last that is known");
    }
    if (g.paused) {
        parts.push("paused by the operator");
    }
    return parts.join(", ");
}

function groups(list) {
    if (list.length === 0) {
        return html("p", {}, "This host is not in any group.");
    }
    return list.map((g) => table(`${g.name}: ${groupState(g)}${g.why ? `. ${g.why}` : ""}`,
        ["Resource", "State", "Host", "Roles", "Note"],
        (g.resources || []).map((r) => [
            r.name, r.kind === "copy" ? html("span", { class: copyState(g, r)[1] }, copyState(g, r)[0]) : "attached", r.host || "-",
            (r.roles || []).map((x) => `${x.host}: ${x.role}`).join(", "), [r.why, r.error].filter(Boolean).join("; "),
        ])));
}

/* ---- the picture ---- */

const BOX = { width: 200, gap: 70, left: 10, host: 96, copy: 44, band: 150, pill: 20 };

/* Hosts that take part in something have a column; the others only their row in the table. */
function columnsOf(o) {
    const names = new Set(o.hosts.filter((h) => h.draining || !["alive", "self"].includes(h.state)).map((h) => h.host));
    o.groups.forEach((g) => (g.hosts || []).forEach((m) => names.add(m.host)));
    [...o.managers, ...o.sip].forEach((p) => names.add(p.owner));
    const all = o.hosts.filter((h) => names.has(h.host) || o.hosts.length <= 12);
    return new Map(all.map((h, i) => [h.host, { host: h, x: BOX.left + i * (BOX.width + BOX.gap) }]));
}

function text(x, y, className, words, most = 30) {
    const s = String(words);
    return svg("text", { x, y, class: className }, s.length > most ? s.slice(0, most - 1) + "\u2026" : s, s.length > most ? svg("title", {}, s) : null);
}

/* Users, and sessions with those apart that nothing protects, as bars of the most that any host has. */
function loadBars(x, y, load, most) {
    const w = (n, of) => of ? Math.round((BOX.width - 20) * n / of) : 0;
    const kept = w(load.kept, most.sessions), bare = w(load.sessions - load.kept, most.sessions);
    return [
        svg("rect", { class: "bar", x, y, width: kept, height: 5 }),
        svg("rect", { class: "bar is-bare", x: x + kept, y, width: bare, height: 5 }),
        svg("rect", { class: "bar is-sip", x, y: y + 8, width: w(load.users, most.users), height: 5 }),
    ];
}

function loadsOf(o) {
    const loads = new Map();
    const of = (host) => loads.get(host) || loads.set(host, { sessions: 0, kept: 0, users: 0, pg: false, sip: false }).get(host);
    for (const m of o.managers) {
        const l = of(m.owner);
        l.pg = true;
        l.sessions += m.serves ? number(m.value.sessions) : 0;
        l.kept += m.serves && m.unprotected_ms === undefined ? number(m.value.protected) : 0;
    }
    for (const s of o.sip) {
        const l = of(s.owner);
        l.sip = true;
        l.users += number(s.value.rows);
    }
    return loads;
}

function drawHost(c, load, most) {
    const [state, tone] = hostState(c.host);
    const l = load || { sessions: 0, kept: 0, users: 0 };
    const words = [l.pg ? count(l.sessions, "session") : "", l.sip ? count(l.users, "SIP user") : ""].filter(Boolean).join(", ");
    return svg("g", { class: "host" },
        svg("rect", { class: `box is-${tone}`, x: c.x, y: 10, width: BOX.width, height: BOX.host, rx: 6 }),
        text(c.x + 10, 30, "name", c.host.host, 24), text(c.x + 10, 48, tone, state),
        words ? text(c.x + 10, 66, "", words, 32) : null,
        load ? loadBars(c.x + 10, 78, l, most) : null);
}

function drawCopies(g, columns, y) {
    const parts = [], at = new Map();
    for (const r of (g.resources || []).filter((x) => x.kind === "copy")) {
        const c = columns.get(r.host);
        const taken = [...at.values()].filter((p) => c && p.x === c.x).length;
        if (c) {
            const [state, tone] = copyState(g, r);
            const p = { x: c.x, y: y + 28 + taken * 6, tone, state, resource: r };
            at.set(r.name, p);
            parts.push(svg("rect", { class: `box is-${tone}`, x: p.x + 10, y: p.y, width: BOX.width - 20, height: BOX.copy, rx: 4 }),
                text(p.x + 20, p.y + 18, "name", r.name, 22), text(p.x + 20, p.y + 35, tone, state, 26));
        }
    }
    for (const m of g.hosts || []) { /* of a subgroup, but another one has it */
        const c = columns.get(m.host), copy = at.get(m.subgroup);
        if (c && m.subgroup && (!copy || copy.resource.host !== m.host)) {
            parts.push(svg("rect", { class: "box is-maybe", x: c.x + 10, y: y + 28, width: BOX.width - 20, height: BOX.copy, rx: 4 }),
                text(c.x + 20, y + 46, "dim", `reaches ${m.subgroup}`, 24));
        }
    }
    return [parts, at];
}

/* From the primary to each mirror, below the boxes, with its progress. */
function drawMirrors(g, at, y) {
    const from = g.primary && at.get(g.primary.resource);
    if (!from) {
        return [];
    }
    const low = y + 28 + BOX.copy;
    return [...at.values()].filter((p) => p !== from && p.resource.mirror_capable && p.resource.mirror !== "none").map((to) => {
        const [a, b] = [from.x + BOX.width / 2, to.x + BOX.width / 2];
        const middle = (a + b) / 2, percent = to.resource.mirror === "syncing" && to.resource.seen ? to.resource.seen.percent : null;
        return svg("g", { class: "mirror" },
            svg("path", { class: `arrow is-${to.tone}`, d: `M${a} ${low} Q${middle} ${low + 52} ${b} ${low + 3}`, "marker-end": "url(#head)" }),
            text(middle - 34, low + 46, to.tone, to.resource.mirror, 16),
            percent === null || percent === undefined ? null : [
                svg("rect", { class: "frame", x: middle - 34, y: low + 52, width: 100, height: 6 }),
                svg("rect", { class: "bar", x: middle - 34, y: low + 52, width: percent, height: 6 }),
            ]);
    });
}

function drawGroup(g, columns, y, width) {
    const [copies, at] = drawCopies(g, columns, y);
    const attached = (g.resources || []).filter((r) => r.kind !== "copy" && columns.get(r.host));
    const pills = attached.map((r, i) => text(columns.get(r.host).x + 20, y + BOX.band - 14 + BOX.pill * i, "dim", `\u2302 ${r.name}`, 26));
    const height = BOX.band + BOX.pill * attached.length;
    return [svg("g", { class: "group" },
        svg("rect", { class: "band", x: 2, y, width: width - 4, height: height - 8, rx: 8 }),
        text(12, y + 18, "name", `${g.name}: ${groupState(g)}`, 80), copies, drawMirrors(g, at, y), pills), height];
}

/* Between host boxes, for a while after it happened. */
function drawMoves(columns, y) {
    return model.moves.filter((m) => columns.has(m.from) && columns.has(m.to)).map((m) => {
        const a = columns.get(m.from).x, b = columns.get(m.to).x;
        const [x1, x2] = a < b ? [a + BOX.width, b] : [a, b + BOX.width];
        return svg("g", { class: "move" },
            svg("path", { class: "arrow is-move", d: `M${x1} ${y} L${x2} ${y}`, "marker-end": "url(#head)" }), svg("title", {}, m.text));
    });
}

function describe(o) {
    const well = o.hosts.filter((h) => ["alive", "self"].includes(h.state)).length;
    const parts = [`${well} of ${count(o.hosts.length, "host")} shown alive`];
    o.groups.forEach((g) => parts.push(`group ${g.name} ${groupState(g)}${g.primary ? `, primary ${g.primary.resource} at ${g.primary.host}` : ""}`));
    model.moves.forEach((m) => parts.push(m.text));
    return parts.join("; ") + ". The tables below tell all of it.";
}

function picture(o) {
    const columns = columnsOf(o), loads = loadsOf(o);
    const width = Math.max(320, BOX.left * 2 + columns.size * (BOX.width + BOX.gap) - BOX.gap);
    const most = { sessions: 0, users: 0 };
    loads.forEach((l) => {
        most.sessions = Math.max(most.sessions, l.sessions);
        most.users = Math.max(most.users, l.users);
    });
    const parts = [...columns.values()].map((c) => drawHost(c, loads.get(c.host.host), most));
    let y = BOX.host + 30;
    for (const g of o.groups) {
        const [part, height] = drawGroup(g, columns, y, width);
        parts.push(part);
        y += height;
    }
    const head = svg("marker", { id: "head", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto-start-reverse", markerUnits: "userSpaceOnUse" },
        svg("path", { d: "M0 0L8 4L0 8z", fill: "context-stroke" }));
    return svg("svg", { width, height: y + 4, viewBox: `0 0 ${width} ${y + 4}`, role: "img", "aria-label": describe(o) },
        svg("defs", {}, head), parts, drawMoves(columns, 10 + BOX.host / 2));
}

/* Who serves an address now, and did not before? */
function noteMoves(before, now) {
    const where = (o) => new Map((o ? o.managers : []).filter((m) => m.serves).map((m) => [m.name, m]));
    const old = where(before);
    for (const [name, m] of where(now)) {
        const was = old.get(name) || model.lastServed.get(name);
        if (was && was.owner !== m.owner) {
            model.moves.push({ from: was.owner, to: m.owner, until: Date.now() + MOVE_SHOWN_MS,
                text: `${m.value.group || name}: ${count(number(m.value.sessions), "session")} went from ${was.owner} to ${m.owner}` });
        }
        model.lastServed.set(name, m);
    }
}

/* ---- charts ---- */

const CHART = { width: 560, height: 120, left: 56, bottom: 18 };

function line(points, x, y) {
    return points.map(([at, v], i) => `${i ? "L" : "M"}${x(at).toFixed(1)} ${y(v).toFixed(1)}`).join("");
}

/* series: [{name, points: [[ms, value], ...]}]; marks: times of events. */
function chart(title, unit, series, marks, now) {
    const since = now - WINDOW_MS;
    const kept = series.map((s) => ({ name: s.name, points: s.points.filter(([at]) => at >= since) })).filter((s) => s.points.length);
    if (kept.length === 0) {
        return null;
    }
    const top = Math.max(...kept.flatMap((s) => s.points.map((p) => p[1])), 0.001) * 1.1;
    const x = (at) => CHART.left + (at - since) / WINDOW_MS * (CHART.width - CHART.left - 6);
    const y = (v) => 6 + (1 - v / top) * (CHART.height - CHART.bottom - 6);
    const words = kept.map((s) => {
        const high = s.points.reduce((a, b) => b[1] > a[1] ? b : a);
        return `${s.name} ${figure(s.points.at(-1)[1])} ${unit}, at most ${figure(high[1])} ${unit} at ${clock(high[0])}`;
    }).join("; ");
    return html("figure", {}, html("h3", {}, title),
        svg("svg", { width: CHART.width, height: CHART.height, viewBox: `0 0 ${CHART.width} ${CHART.height}`, role: "img", "aria-label": `${title}: ${words}` },
            svg("rect", { class: "frame", x: CHART.left, y: 6, width: CHART.width - CHART.left - 6, height: CHART.height - CHART.bottom - 6 }),
            text(2, 16, "dim", `${figure(top)} ${unit}`, 9), text(2, CHART.height - CHART.bottom, "dim", "0"),
            text(CHART.left, CHART.height - 3, "dim", "10 minutes ago"), text(CHART.width - 34, CHART.height - 3, "dim", "now"),
            marks.filter((at) => at >= since).map((at) => svg("path", { class: "mark", d: `M${x(at).toFixed(1)} 6V${CHART.height - CHART.bottom}` })),
            kept.map((s, i) => svg("path", { class: `series${i % 3}`, d: line(s.points, x, y) }))),
        html("figcaption", {}, words));
}

function pointsOf(samples, key) {
    return samples.filter((s) => s[key] !== undefined).map((s) => [s.at, s[key]]);
}

function charts(data) {
    const all = [], sipSeries = [];
    for (const [, samples] of data.samples) {
        const name = samples[0].name;
        const marks = data.events.filter((e) => e.about === "manager" && e.name === name).map((e) => e.at);
        if (samples[0].about === "sip") {
            sipSeries.push({ name, points: pointsOf(samples, "requests_s") });
            continue;
        }
        all.push(chart(`${name}: latency of requests`, "ms",
            [{ name: "half within", points: pointsOf(samples, "p50_ms") }, { name: "99 % within", points: pointsOf(samples, "p99_ms") }], [], data.now));
        all.push(chart(`${name}: stalls, the slowest request`, "ms", [{ name: "slowest", points: pointsOf(samples, "slowest_ms") }], marks, data.now));
        all.push(chart(`${name}: how far the backup is behind`, "ms", [{ name: "lag", points: pointsOf(samples, "lag_ms") }], marks, data.now));
    }
    all.push(chart("SIP requests per second", "/s", sipSeries, [], data.now));
    const there = all.filter(Boolean);
    return there.length ? there : [html("p", {}, "No figures yet: they come every 5 s from holdfast-pg and holdfast-sip.")];
}

/* ---- events ---- */

function events(list) {
    if (list.length === 0) {
        return html("p", {}, "Nothing has happened since holdfastd started.");
    }
    return html("ol", {}, [...list].reverse().map((e) => html("li", {},
        html("time", { datetime: new Date(e.at).toISOString() }, clock(e.at)),
        html("strong", {}, e.about === "sip" ? `SIP ${e.name}` : e.name), ` ${e.text}`)));
}

/* ---- the page ---- */

function stateText() {
    const o = model.overview;
    if (!o) {
        return model.live ? "Connected" : "Connecting";
    }
    if (!model.live) {
        return "Connection lost: what is shown is old. Trying again";
    }
    const n = o.problems.length;
    const head = o.state === "run" ? "running" : `not part of the cluster yet (${o.state})`;
    return `${head}, ${n ? count(n, "problem") : "no problems"}, ${count(o.members, "host")}${model.paused ? "; updates are paused" : ""}`;
}

/* Screen readers say it again only if it differs. */
function say(id, words) {
    const e = document.getElementById(id);
    if (e.textContent !== words) {
        e.textContent = words;
    }
}

function render() {
    say("state", stateText());
    document.getElementById("main").classList.toggle("old", !model.live && model.overview !== null);
    const o = model.overview;
    if (!o || model.paused) {
        return;
    }
    const now = Date.now();
    model.moves = model.moves.filter((m) => m.until > now);
    say("host", ` on ${o.host}`);
    document.title = `${o.problems.length ? `(${o.problems.length}) ` : ""}${o.host} - Holdfast`;
    show("problems", o.problems, problems);
    show("picture", { o: { hosts: o.hosts, groups: o.groups.map((g) => ({ ...g, counters: null })), managers: o.managers, sip: o.sip }, moves: model.moves }, (d) => picture(d.o));
    show("sessions", o.managers, sessions);
    show("sip", o.sip, sip);
    show("groups", o.groups.map((g) => ({ ...g, counters: null })), groups);
    show("hosts", { hosts: o.hosts, members: o.members, hosts_more: o.hosts_more }, hosts);
    show("events", model.events, events);
    show("charts", { samples: [...model.samples], events: model.events, now: Math.floor(now / 5000) * 5000 }, charts);
}

let due = false;
function renderSoon() {
    if (!due) {
        due = true;
        setTimeout(() => {
            due = false;
            render();
        }, 100);
    }
}

/* ---- the connection ---- */

function onNote(e) {
    const note = JSON.parse(e.data);
    model.events.push(note);
    model.events.splice(0, Math.max(0, model.events.length - EVENTS_MAX));
    if (model.told && !model.paused) {
        say("news", `${note.name}: ${note.text}`);
    }
    renderSoon();
}

function onSample(e) {
    const s = JSON.parse(e.data), key = `${s.about} ${s.name}`;
    const list = model.samples.get(key) || model.samples.set(key, []).get(key);
    list.push(s);
    while (list.length && list[0].at < s.at - WINDOW_MS) {
        list.shift();
    }
    renderSoon();
}

function onOverview(e) {
    const o = JSON.parse(e.data);
    noteMoves(model.overview, o);
    model.overview = o;
    model.told = true;
    renderSoon();
}

/* All is told anew on each connection. */
function onOpen() {
    model.live = true;
    model.told = false;
    model.events = [];
    model.samples.clear();
    renderSoon();
}

function connect() {
    const source = new EventSource("v1/overview/events");
    source.addEventListener("open", onOpen);
    source.addEventListener("note", onNote);
    source.addEventListener("sample", onSample);
    source.addEventListener("overview", onOverview);
    source.addEventListener("error", () => {
        model.live = false;
        renderSoon();
        if (source.readyState === EventSource.CLOSED) { /* refused: the browser does not try again */
            setTimeout(connect, AGAIN_MS);
        }
    });
}

function onPause(e) {
    model.paused = !model.paused;
    e.currentTarget.setAttribute("aria-pressed", String(model.paused));
    render();
}

document.getElementById("pause").addEventListener("click", onPause);
connect();
