#!/usr/bin/python3
"""Every message that a client gets through holdfast-pg is the one that it gets directly.

Each scenario runs twice on the same server, in a fresh database: bare, and through the proxy. The two streams of
messages must be equal, but for what is masked here: process ids, keys, OIDs of what the scenario made; and that
ParameterStatus and NotificationResponse may come at another place of a round: they are asynchronous.
DIFF_PROXY=pgbouncer runs them through PgBouncer, DIFF_PROXY=none directly again; DIFF_SEED and DIFF_COUNT choose the random scenarios.
"""
import functools
import os
import random
import sys
import threading
import time

import pytest

import pgwire
import postgres
from pgwire import (Bind, ClosePortal, CloseStatement, Connection, CopyData, CopyDone, CopyFail, DescribePortal,
                    DescribeStatement, Execute, Flush, FunctionCall, Parse, Query, Sync)

PROXY = os.environ.get("DIFF_PROXY", "holdfast-pg")
SEED = int(os.environ.get("DIFF_SEED", "1"))
COUNT = int(os.environ.get("DIFF_COUNT", "60"))
SCENARIOS = {}
BARE = {}  # what they gave directly
# how the proxy is run, and how many bytes the client sends in a segment
VARIANTS = {
    "protected": ({}, 0),
    "bare": ({"session__protect_writes": False}, 0),
    "chopped": ({}, 1),
    "moved": ({"session__rehearse_moves": 1}, 0),
}
# what a session that can't be moved or replayed is told, and nothing else
REFUSALS = ("57P01", "40001")
TABLE = "create table t (id serial primary key, v int, w text)"


def scenario(f):
    SCENARIOS[f.__name__] = f
    return f


def masked(m, c):
    """A message in a form that is equal for two runs"""
    data = m.data
    if m.kind == "K":
        data = len(data[1])
    elif m.kind == "T":
        data = [column._replace(table=min(column.table, 1), type=oid(column.type)) for column in data]
    elif m.kind == "t":
        data = [oid(t) for t in data]
    elif m.kind == "A":
        data = ("self" if c.key and data[0] == c.key[0] else "other", *data[1:])
    return (m.name, data)


def late(stream):
    """Asynchronous messages at the end of their round; of a setting that changes several times in it, the last value,
    if it is another one than before."""
    out, told, status, notes = [], {}, {}, []
    for n, m in enumerate([*stream, ("end", None)]):
        if m[0] == "ParameterStatus":
            status[m[1][0]] = m
        elif m[0] == "NotificationResponse":
            notes.append(m)
        else:
            if m[0] in ("ReadyForQuery", "end"):
                out += sorted(s for k, s in status.items() if told.get(k) != s) + notes
                told |= status
                status, notes = {}, []
            if n < len(stream):
                out.append(m)
    return out


def oid(n):
    return "own" if n >= 16384 else n


class Run:
    """One run of a scenario: sessions by name, made when first used; all they saw."""

    def __init__(self, endpoint, chop, database="test"):
        self.endpoint, self.chop, self.database = endpoint, chop, database
        self.open, self.notes = [], []

    def session(self, **kw):
        kw.setdefault("database", self.database)
        c = Connection(self.endpoint, chop=self.chop, **kw)
        self.open.append(c)
        return c

    def note(self, what):
        """Something else that must be equal"""
        self.notes.append(what)

    def __getattr__(self, name):  # c, d, e: sessions
        if name not in ("c", "d", "e"):
            raise AttributeError(name)
        setattr(self, name, self.session())
        return getattr(self, name)

    def seen(self):
        return [late([masked(m, c) for m in c.seen]) for c in self.open] + [self.notes]

    def end(self):
        for c in self.open:
            c.close()


@pytest.fixture(scope="module")
def rig():
    if PROXY == "holdfast-pg" and not postgres.find_program(PROXY):
        pytest.fail("holdfast-pg is not built")
    with postgres.Rig() as r:
        r.server(max_prepared_transactions=10)
        yield r


@pytest.fixture(scope="module")
def proxies(rig):
    made = {}

    def get(variant):
        if PROXY == "none":
            return rig.servers[0]
        if variant not in made:
            made[variant] = rig.proxy(rig.servers, PROXY, **VARIANTS[variant][0])
        return made[variant]

    return get


def fresh(server):
    with Connection(server) as c:
        if c.rows("select 1 from pg_prepared_xacts"):
            with Connection(server, database="test") as other:
                for (gid,) in c.rows("select gid from pg_prepared_xacts"):
                    pgwire.check(other.query(f"rollback prepared '{gid}'"))
        c.query("drop database if exists test with (force)")
        pgwire.check(c.query("create database test strategy file_copy"))  # cheap where nothing is synced


def run_once(f, server, endpoint, chop=0):
    fresh(server)
    r = Run(endpoint, chop)
    try:
        f(r)
        error = None
    except (pgwire.Closed, TimeoutError) as e:
        error = type(e).__name__
    finally:
        r.end()
    return r.seen() + [error]


def both(f, rig, proxies, variant):
    server = rig.servers[0]
    proxy = proxies(variant)
    if f not in BARE:
        BARE[f] = run_once(f, server, server)
    bare = BARE[f]
    through = run_once(f, server, proxy, VARIANTS[variant][1])
    assert proxy.running(), proxy.tail()
    if bare == through:
        return
    differ = list(differences(bare, through))
    n, i = differ[0]
    text = "\n".join(report(bare, through, *d) for d in differ)
    if variant == "moved" and refused(through, n, i):
        pytest.xfail("refused: " + text)
    pytest.fail(text, pytrace=False)


def differences(a, b):
    """(stream, message): the first in each stream; the last stream is the error that ended the run"""
    for n in range(max(len(a), len(b))):
        x, y = (s[n] if n < len(s) else None for s in (a, b))
        if x != y:
            i = 0
            while isinstance(x, list) and isinstance(y, list) and i < min(len(x), len(y)) and x[i] == y[i]:
                i += 1
            yield n, i


def refused(through, n, i):
    """Whether the first thing that differs is a refusal"""
    stream = through[n]
    return (isinstance(stream, list) and i < len(stream) and stream[i][0] == "ErrorResponse"
            and stream[i][1]["code"] in REFUSALS)


def report(a, b, n, i):
    lines = [f"stream {n}, message {i}"]
    for who, streams in (("bare", a), ("through", b)):
        s = streams[n] if n < len(streams) else None
        if not isinstance(s, list):
            lines.append(f"{who}: {s}")
            continue
        lines += [f"{who}:"] + [f"  {'>' if k == i else ' '} {s[k]}" for k in range(max(0, i - 4), min(len(s), i + 4))]
    return "\n".join(lines)


def make(r, *sql):
    """Prepare objects; not compared"""
    with Connection(r.endpoint, database=r.database) as c:
        for s in (TABLE, *sql):
            pgwire.check(c.query(s))


def many(*statements):
    """A scenario of simple queries"""
    def f(r):
        make(r)
        for s in statements:
            r.c.query(s)
    return f


def messages(*rounds):
    """A scenario of rounds of messages, each ended by one Sync"""
    def f(r):
        make(r, "insert into t (v) select generate_series(1, 10)")
        for sent in rounds:
            r.c.ask(*sent, count=sent.count(Sync))
    return f


def add(name, f):
    assert name not in SCENARIOS, name
    SCENARIOS[name] = f


def once(sql, values=(), **kw):
    """The usual extended round"""
    return (Parse(sql), Bind(values, **kw), DescribePortal(), Execute(), Sync)


def pbe(sql, values=()):
    return (Parse(sql), Bind(values), Execute())


# --- simple queries ---

SIMPLE = {
    "select": ["select 1", "select 1, null, 'a' as b", "select * from t", "table t", "values (1), (2)"],
    "empty": ["", ";", "  -- nothing", ";;", "/* x */;", "select 1;", "select 1;;", " ; select 1"],
    "writes": ["insert into t (v) values (1)", "insert into t (v) values (2), (3)", "update t set v = v + 1",
               "update t set v = 0 where false", "delete from t where v = 2", "select * from t order by id",
               "insert into t (v) values (7) returning id, v, w", "delete from t returning *",
               "with x as (insert into t (v) values (8) returning id) select id from x",
               "insert into t (id, v) values (1, 1) on conflict (id) do update set v = excluded.v",
               "insert into t (id, v) values (1, 1) on conflict do nothing",
               "merge into t using (values (1, 5), (77, 6)) s (id, v) on t.id = s.id"
               " when matched then update set v = s.v when not matched then insert values (s.id, s.v)",
               "truncate t", "insert into t select g, g from generate_series(100, 110) g",
               "select * from t where v > 105 order by id for update"],
    "comments": ["/* a */ insert into t (v) values (1) -- b", "-- c\ninsert into t (v) values (1)",
                 "insert into t (v) values (1);", "insert into t (v) values (1); ",
                 "INSERT INTO T (V) VALUES (1); -- d"],
    "errors": ["select 1/0", "selec 1", "select x from t", "select * from nothing", "insert into t (v) values ('x')",
               "insert into t (nix) values (1)", "insert into t (id) values (1)", "insert into t (id) values (1)",
               "update t set v = 1/0", "insert into t (v) select 1/(5-g) from generate_series(1, 9) g",
               "select * from t", "select 'unterminated", "select 1; select 2/0; select 3", "(", "select 1)"],
    "constraints": ["create table p (i int primary key, c int check (c > 0), n int not null)",
                    "create table f (i int references p)", "insert into p values (1, 1, 1)",
                    "insert into p values (1, 1, 1)", "insert into p values (2, 0, 1)",
                    "insert into p values (3, 1, null)", "insert into f values (9)", "delete from p",
                    "insert into f values (1)", "delete from p", "drop table p", "drop table p cascade"],
    "transaction": ["begin", "insert into t (v) values (1)", "select count(*) from t", "commit", "select count(*) from t",
                    "begin", "insert into t (v) values (1)", "rollback", "select count(*) from t",
                    "start transaction", "select 1/0", "select 1", "insert into t (v) values (1)", "commit", "select 1",
                    "begin", "select 1/0", "rollback", "begin", "end", "begin work", "abort"],
    "transaction_warnings": ["commit", "rollback", "begin", "begin", "insert into t (v) values (1)", "commit",
                             "savepoint a", "release a", "rollback to a", "commit and chain", "rollback and chain",
                             "set local work_mem = '1MB'", "set transaction read only", "lock t", "prepare transaction 'x'",
                             "declare c cursor for select 1", "commit prepared 'nix'"],
    "savepoints": ["begin", "insert into t (v) values (1)", "savepoint a", "insert into t (v) values (2)", "savepoint a",
                   "select 1/0", "select 1", "rollback to a", "insert into t (v) values (3)", "release a", "rollback to a",
                   "select v from t order by 1", "commit", "select v from t order by 1", "begin", "rollback to nix",
                   "rollback"],
    "chain": ["begin isolation level serializable", "insert into t (v) values (1)", "commit and chain",
              "show transaction_isolation", "insert into t (v) values (2)", "rollback and chain",
              "show transaction_isolation", "insert into t (v) values (3)", "commit", "select v from t", "begin",
              "select 1/0", "commit and chain", "select 1", "rollback"],
    "isolation": ["begin isolation level repeatable read read only deferrable", "show transaction_isolation",
                  "insert into t (v) values (1)", "rollback", "begin", "set transaction isolation level serializable",
                  "show transaction_isolation", "commit", "set default_transaction_isolation = 'repeatable read'",
                  "insert into t (v) values (1) returning current_setting('transaction_isolation')",
                  "show transaction_isolation"],
    "read_only": ["set default_transaction_read_only = on", "insert into t (v) values (1)", "create table u (i int)",
                  "begin read write", "insert into t (v) values (1)", "commit", "insert into t (v) values (1)",
                  "select nextval('t_id_seq')", "set default_transaction_read_only = off", "insert into t (v) values (1)",
                  "begin", "set transaction read only", "insert into t (v) values (2)", "rollback",
                  "begin read only", "select 1", "update t set v = 1", "rollback"],
    "two_phase": ["begin", "insert into t (v) values (1)", "prepare transaction 'diff'", "select count(*) from t",
                  "select gid from pg_prepared_xacts", "commit prepared 'diff'", "select count(*) from t", "begin",
                  "insert into t (v) values (1)", "prepare transaction 'diff'", "rollback prepared 'diff'",
                  "rollback prepared 'diff'", "select count(*) from t", "begin", "select 1/0",
                  "prepare transaction 'diff'", "select 1"],
    "several": ["insert into t (v) values (1); insert into t (v) values (2); select v from t",
                "insert into t (v) values (3); select 1/0; insert into t (v) values (4)", "select v from t order by 1",
                "begin; insert into t (v) values (5); commit", "begin; insert into t (v) values (6)", "select 1/0",
                "rollback; select v from t order by 1", "insert into t (v) values (7); begin; select 1",
                "insert into t (v) values (8); commit; select v from t order by 1",
                "insert into t (v) values (9); commit; insert into t (v) values (10); select 1/0",
                "select v from t order by 1", "insert into t (v) values (11); rollback; insert into t (v) values (12)",
                "select v from t order by 1", "begin; savepoint a; select 1/0; rollback to a", "select 1",
                "rollback to a; commit", "select 1; vacuum t", "select 1; begin; vacuum t", "rollback",
                "insert into t (v) values (13); prepare transaction 'diff'", "select v from t order by 1",
                "select 1; commit and chain", "begin; commit and chain; insert into t (v) values (14); commit",
                "select 1; selec 2", "select 1;; select 2; ", "create table u (i int); insert into u values (1); table u"],
    "utility": ["create table u (i int)", "create index on u (i)", "create index concurrently u2 on u (i)", "vacuum u",
                "analyze u", "vacuum (full) u", "cluster u using u2", "reindex table concurrently u", "alter table u add j int",
                "comment on table u is 'x'", "drop table u", "create table u as select 1 as a",
                "select 1 as a into u2", "create view x as select 1", "drop view x, nix", "explain select 1",
                "explain (costs off) insert into t (v) values (1)", "create schema s create table s.t (i int)",
                "drop schema s", "drop schema s cascade", "drop table if exists nix", "checkpoint", "create materialized view m as"
                " select count(*) from t", "refresh materialized view m", "lock table t in share mode", "show work_mem",
                "create database test2", "drop database test2", "create type e as enum ('a', 'b')", "select 'a'::e",
                "alter type e add value 'c'", "select 'c'::e", "grant select on t to public", "create sequence q",
                "security label on table t is 'x'", "create extension pageinspect", "drop extension pageinspect",
                "alter system set work_mem = '5MB'", "alter system reset work_mem", "create unlogged table v (i int)"],
    "time": ["select now() = statement_timestamp()", "insert into t (v) values (1) returning now() = statement_timestamp()",
             "update t set v = 2 returning now() = statement_timestamp(), transaction_timestamp() = now()",
             "delete from t returning now() = statement_timestamp()", "begin; select now() = statement_timestamp(); commit",
             "begin", "select now() < statement_timestamp()", "commit",
             "insert into t (v) values (1); select now() = statement_timestamp()",
             "copy (insert into t (v) values (1) returning now() = statement_timestamp()) to stdout"],
    "current_query": ["select current_query()", "insert into t (v, w) values (1, current_query()) returning w",
                      "select 1; select current_query()", "begin", "insert into t (w) values (current_query()) returning w",
                      "commit"],
    "settings": ["set timezone = 'Europe/Vienna'", "set datestyle = 'German'", "select '2020-01-02'::date", "reset datestyle",
                 "set application_name = 'x'", "set client_encoding = 'LATIN1'", "select 'ä'", "reset client_encoding",
                 "set standard_conforming_strings = off", r"select '\\'", "reset all", "begin", "set timezone = 'Asia/Tokyo'",
                 "rollback", "show timezone", "begin", "set timezone = 'Asia/Tokyo'", "savepoint a", "set timezone = 'UTC'",
                 "rollback to a", "commit", "show timezone", "begin", "set local timezone = 'GMT'", "show timezone", "commit",
                 "show timezone", "select set_config('timezone', 'America/Lima', false)", "show timezone",
                 "select set_config('timezone', 'America/Bogota', true)", "show timezone", "set nix = 1", "set work_mem = 'x'",
                 "set work_mem = 1", "set my.own = 'v'", "show my.own", "reset my.own", "show my.own", "set names 'UTF8'",
                 "set time zone local", "set intervalstyle = 'iso_8601'", "select '1 day 2 hours'::interval",
                 "set search_path = nix", "select * from t", "set search_path = public", "discard all", "show timezone",
                 "insert into t (v) select 1 where set_config('timezone', 'Asia/Tokyo', false) is not null", "show timezone",
                 "set session characteristics as transaction read only", "insert into t (v) values (1)",
                 "set session characteristics as transaction read write", "insert into t (v) values (1) returning v"],
    "roles": ["create role diff_r", "grant all on t to diff_r", "grant all on sequence t_id_seq to diff_r", "set role diff_r",
              "select current_user, session_user", "insert into t (v) values (1) returning v", "create table u (i int)",
              "reset role", "set session authorization diff_r", "select current_user, session_user", "drop role diff_r",
              "insert into t (v) values (1) returning v", "reset session authorization", "begin", "set local role diff_r",
              "select current_user", "commit", "select current_user", "set role nix", "set role none",
              "drop owned by diff_r", "drop role diff_r"],
    "prepare": ["prepare a as select 1", "execute a", "execute a", "prepare a as select 2", "deallocate a", "execute a",
                "prepare b (int) as insert into t (v) values ($1) returning v", "execute b (4)", "execute b ('x')", "execute b",
                "begin", "execute b (5)", "commit", "select name, statement, parameter_types::text, from_sql"
                " from pg_prepared_statements", "create table u as execute a", "explain (costs off) execute b (1)",
                "deallocate all", "execute b (1)", "prepare c as", "begin", "prepare d as select 4", "rollback", "execute d",
                "discard plans", "execute d", "discard all", "execute d"],
    "cursors": ["begin", "declare c cursor for select generate_series(1, 5)", "fetch 2 from c", "fetch c", "move 1 in c",
                "fetch all from c", "fetch c", "close c", "fetch c", "rollback", "begin", "declare c scroll cursor with hold for"
                " select generate_series(1, 5)", "fetch 2 from c", "commit", "fetch 1 from c", "fetch backward 2 from c",
                "select name, statement, is_holdable from pg_cursors", "insert into t (v) values (1)", "fetch absolute 3 from c",
                "close c", "fetch c", "declare h cursor with hold for select v from t", "fetch all from h", "close all",
                "begin", "declare u cursor for select * from t for update", "fetch u", "update t set v = 9 where current of u",
                "commit", "select v from t", "begin", "declare x binary cursor for select 1", "fetch x", "commit"],
    # lastval() first: what tells that the session uses it; a move before that would lose it
    "sequences": ["select lastval()", "select nextval('t_id_seq')", "select currval('t_id_seq'), lastval()", "insert into t (v) values (1) returning id",
                  "select lastval()", "select setval('t_id_seq', 40)", "insert into t (v) values (1) returning id", "begin",
                  "select nextval('t_id_seq')", "rollback", "select nextval('t_id_seq')", "create sequence q cache 5",
                  "select nextval('q')", "select currval('q')", "drop sequence q", "discard sequences", "select lastval()",
                  "select setseed(0.5)", "select random()"],
    "temporary": ["create temp table x (i int)", "insert into x values (1)", "select * from x", "drop table x",
                  "create temp table x (i int) on commit delete rows", "insert into x values (1)", "select * from x", "begin",
                  "insert into x values (2)", "select * from x", "commit", "select * from x", "begin",
                  "create temp table y (i int) on commit drop", "insert into y values (1)", "commit", "select * from y",
                  "create temp sequence q", "select nextval('q')", "discard temp", "select * from x",
                  "select 1 as i into temp z", "table z", "begin", "insert into z values (2)", "prepare transaction 'diff'",
                  "select 1"],
    "notices": [f"do $$begin raise {level} 'at {level}'; end$$" for level in ("debug", "log", "info", "notice", "warning")]
               + ["set client_min_messages = 'error'", "do $$begin raise notice 'no'; end$$", "rollback",
                  "set client_min_messages = 'warning'", "drop table if exists nix", "rollback",
                  "set client_min_messages = 'log'", "do $$begin raise log 'yes'; raise debug 'no'; end$$",
                  "insert into t (v) values (1)", "reset client_min_messages"],
    "raise": ["do $$begin raise exception 'x' using errcode = '22012', detail = 'd', hint = 'h', column = 'c', constraint = 'k',"
              " datatype = 'y', table = 't', schema = 's'; end$$",
              "do $$begin raise notice 'x' using errcode = '01234', detail = 'd', hint = 'h'; end$$",
              "do $$begin perform 1/0; exception when division_by_zero then raise notice 'caught'; end$$",
              "create function f() returns int language plpgsql as $$begin raise notice 'in f'; return 1/0; end$$",
              "select f()", "insert into t (v) values (f())", "select f() from t", "begin", "select f()", "rollback",
              "do $$begin raise exception using errcode = '40001', message = 'own'; end$$",
              "do $$begin raise exception using errcode = '57P01', message = 'own'; end$$",
              "do $$begin raise exception using errcode = '25006', message = 'own'; end$$",
              "do $$begin raise exception using errcode = '08006', message = 'own'; end$$"],
    "procedures": ["create procedure p(n int) language plpgsql as $$begin insert into t (v) values (n); commit;"
                   " insert into t (v) values (n + 1); rollback; raise notice 'done'; end$$",
                   "call p(1)", "select v from t", "begin", "call p(5)", "rollback", "select 1; call p(7)",
                   "do $$begin insert into t (v) values (20); commit; end$$", "begin",
                   "do $$begin insert into t (v) values (30); commit; end$$", "rollback", "select v from t order by 1",
                   "create procedure o(inout n int) language sql as 'select n + 1'", "call o(4)",
                   "create function w() returns int language sql as 'insert into t (v) values (40) returning v'",
                   "select w()", "select count(*) from t where v = w()", "select w() from generate_series(1, 3)"],
    "triggers": ["create function tg() returns trigger language plpgsql as $$begin raise notice '% % %', tg_name, tg_when, tg_op;"
                 " return new; end$$", "create trigger b before insert or update on t for each row execute function tg()",
                 "create trigger a after insert or update on t for each row execute function tg()",
                 "create constraint trigger d after insert on t deferrable initially deferred for each row"
                 " execute function tg()", "insert into t (v) values (1)", "update t set v = 2",
                 "insert into t (v) values (1), (2)", "begin", "insert into t (v) values (3)", "select 1", "commit", "begin",
                 "insert into t (v) values (3)", "set constraints all immediate", "commit", "insert into t (v) values (1);"
                 " insert into t (v) values (2)", "with x as (insert into t (v) values (9) returning 1) select 1",
                 "create rule r as on insert to t do also select 77 as x", "insert into t (v) values (5)",
                 "create rule n as on delete to t do instead nothing", "delete from t",
                 "create rule i as on update to t do instead insert into t (v) values (50)", "update t set v = 1"],
    "deferred": ["create table d (i int unique deferrable initially deferred)", "insert into d values (1)", "insert into d values (1)",
                 "insert into d values (2), (2)", "insert into d values (3) returning i", "insert into d values (3) returning i",
                 "update d set i = 1", "begin", "insert into d values (1)", "select 1", "commit", "select 1", "table d", "begin",
                 "insert into d values (1)", "set constraints all immediate", "rollback", "begin", "insert into d values (1)",
                 "savepoint a", "rollback to a", "commit", "insert into d values (8); insert into d values (8)",
                 "insert into d values (8); select 1", "insert into d values (9); insert into d values (9); select 1",
                 "with x as (insert into d values (1) returning i) select * from x",
                 "copy (insert into d values (1) returning i) to stdout", "select * from d order by 1"],
    "notify": ["listen a", "notify a", "notify a, 'payload'", "select pg_notify('a', 'x')", "begin", "notify a, '1'", "notify a, '1'",
               "notify a, '2'", "commit", "begin", "notify a, '3'", "rollback", "insert into t (v, w) select 1, pg_notify('a', 'in')::text",
               "notify a, '4'; notify a, '5'", "notify a; select 1/0", "select pg_listening_channels()", "begin", "listen b",
               "rollback", "select pg_listening_channels()", "unlisten a", "notify a", "listen c", "unlisten *", "notify c",
               "listen \"We ird\"", "notify \"We ird\", 'ä'", "discard all", "notify a"],
    "advisory": ["select pg_advisory_lock(1)", "select pg_try_advisory_lock(1)", "select pg_advisory_unlock(1)",
                 "select pg_advisory_unlock(1)", "select pg_advisory_unlock(1)", "begin", "select pg_advisory_xact_lock(2)", "commit",
                 "select count(*) from pg_locks where locktype = 'advisory'", "select pg_advisory_lock_shared(3)",
                 "select pg_advisory_unlock_all()"],
    "hidden": ["insert into t (v) values (1)", "update t set v = 2", "begin", "insert into t (v) values (1)", "commit",
               "select name, statement from pg_prepared_statements", "select name from pg_cursors",
               "select name, setting from pg_settings where source = 'session' order by 1",
               "select pg_current_xact_id_if_assigned() is null", "begin", "select pg_current_xact_id_if_assigned() is null",
               "insert into t (v) values (1)", "select pg_current_xact_id_if_assigned() is null", "commit",
               "select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'"],
    "timeout": ["set statement_timeout = 50", "select pg_sleep(5)", "insert into t (v) select 1 from pg_sleep(5)", "begin",
                "select pg_sleep(5)", "select 1", "commit", "reset statement_timeout", "set lock_timeout = 10", "select 1"],
    "large_objects": ["select lo_create(4711)", "begin", "select lo_open(4711, 131072)", "select lowrite(0, 'abc')",
                      "select lo_close(0)", "commit", "select lo_get(4711)", "select lo_put(4711, 1, 'XY')", "select lo_get(4711)",
                      "select lo_unlink(4711)", "select lo_unlink(4711)", "select lo_open(1, 131072)"],
}
for _name, _statements in SIMPLE.items():
    add(f"simple_{_name}", many(*_statements))


@scenario
def simple_one_by_one_and_at_once(r):
    """Queries sent without waiting for answers"""
    make(r)
    sent = ["insert into t (v) values (1)", "select 1/0", "begin", "insert into t (v) values (2)", "commit", "",
            "select v from t order by 1", "begin", "select 1/0", "select 1", "rollback", "update t set v = 3"]
    for s in sent:
        r.c.query(s)
    r.c.ask(*map(Query, sent), count=len(sent))


@scenario
def simple_large(r):
    make(r)
    text = "x" * 3_000_000
    r.c.query(f"select length('{text}')")
    r.c.query(f"insert into t (w) values ('{text}') returning length(w)")
    r.c.query("select w from t")
    r.c.query("select g, repeat('y', 1000) from generate_series(1, 5000) g")
    r.c.query("select g from generate_series(1, 50000) g")
    r.c.query("insert into t (v) select g from generate_series(1, 20000) g returning id, v")


@scenario
def pid_is_the_backends(r):
    """isolationtester looks for blocked sessions by it (R12)"""
    r.c.query(f"select pg_backend_pid() = {r.c.key[0]}")


@scenario
def two_sessions(r):
    make(r)
    r.c.query("begin")
    r.c.query("insert into t (v) values (1)")
    r.d.query("select count(*) from t")
    r.c.query("commit")
    r.d.query("select count(*) from t")
    r.c.query("begin")
    r.c.query("update t set v = 2")
    r.d.query("set lock_timeout = 50")
    r.d.query("update t set v = 3")
    r.c.query("rollback")
    r.d.query("update t set v = 3 returning v")


@scenario
def serialization_failure(r):
    make(r, "insert into t (v) values (1), (2)")
    for c in (r.c, r.d):
        c.query("begin isolation level serializable")
        c.query("select sum(v) from t")
    r.c.query("insert into t (v) values (10)")
    r.d.query("insert into t (v) values (20)")
    r.c.query("commit")
    r.d.query("commit")
    r.d.query("select v from t order by 1")
    for c in (r.c, r.d):
        c.query("begin isolation level repeatable read")
        c.query("select 1 from t")
    r.c.query("update t set v = v + 1")
    r.c.query("commit")
    r.d.query("update t set v = v + 1")
    r.d.query("commit")


@scenario
def deadlock(r):
    make(r, "insert into t (v) values (1), (2)")
    r.c.query("set deadlock_timeout = '20ms'")
    r.d.query("set deadlock_timeout = '10s'")
    for c, row in ((r.c, 1), (r.d, 2)):
        c.query("begin")
        c.query(f"update t set w = 'x' where v = {row}")
    r.d.send(Query("update t set w = 'y' where v = 1"))
    waiting(r, r.d)
    for m in r.c.query("update t set w = 'y' where v = 2"):
        if m.kind == "E":  # names the processes
            m.data["detail"] = m.data["detail"].count("waits for")
    r.c.query("rollback")
    r.d.until()
    r.d.query("commit")


def waiting(r, c, what="Lock"):
    """Until it waits for this in the server"""
    with Connection(r.endpoint, database=r.database) as look:
        postgres.until(lambda: look.rows("select 1 from pg_stat_activity where datname = current_database()"
                                         f" and wait_event_type = '{what}' and pid <> pg_backend_pid()"),
                       f"a session waits for {what}")


# --- ends of sessions ---

@scenario
def idle_in_transaction_timeout(r):
    r.c.query("set idle_in_transaction_session_timeout = 50")
    r.c.query("begin")
    r.c.rest()


@scenario
def idle_timeout(r):
    r.c.query("set idle_session_timeout = 50")
    r.c.rest()


@scenario
def terminates_itself(r):
    make(r)
    r.c.send(Query("select pg_terminate_backend(pg_backend_pid())"))
    r.c.rest()


@scenario
def terminated_in_transaction(r):
    make(r)
    r.c.query("begin")
    r.c.query("insert into t (v) values (1)")
    pid = r.c.one("select pg_backend_pid()")
    r.c.seen.pop(-3)
    r.d.query(f"select pg_terminate_backend({pid})")
    r.c.rest()


@scenario
def cancel(r):
    make(r)
    for sql in ("select pg_sleep(60)", "insert into t (v) select 1 from pg_sleep(60)"):
        r.c.send(Query(sql))
        waiting(r, r.c, "Timeout")
        r.c.cancel()
        r.c.until()
    r.c.query("begin")
    r.c.send(Query("select pg_sleep(60)"))
    waiting(r, r.c, "Timeout")
    r.c.cancel()
    r.c.until()
    r.c.query("select 1")
    r.c.query("rollback")
    r.c.send(*pbe("insert into t (v) select 1 from pg_sleep(60)"), Sync)
    waiting(r, r.c, "Timeout")
    r.c.cancel()
    r.c.until()
    r.c.cancel()  # idle: nothing
    r.c.query("select count(*) from t")


@scenario
def cancel_with_a_wrong_key(r):
    right = r.c.key
    r.c.send(Query("select pg_sleep(0.3)"))
    r.c.key = (right[0], b"\1\2\3\4")
    r.c.cancel()
    r.c.until()


@scenario
def closed_by_the_client(r):
    """What was not committed is undone, what was sent is done."""
    make(r)
    c = r.session()
    c.query("begin")
    c.query("insert into t (v) values (1)")
    c.abort()
    c = r.session()
    c.send(Query("insert into t (v) values (2)"), pgwire.Terminate)
    c.rest()
    r.open.remove(c)  # whether it still got the answer does not matter
    c.close()
    postgres.until(lambda: Connection(r.endpoint, database=r.database).one("select count(*) from t") == "1", "it is done")
    r.d.query("select v from t")


# --- logins ---

def login(r, **kw):
    try:
        r.session(**kw)
    except pgwire.PgError as e:  # passed on in the proxy's own words: without the server's source lines
        r.note({k: v for k, v in e.fields.items() if k not in ("file", "line", "routine")})


@scenario
def logins(r):
    for kw in ({}, {"database": "nix"}, {"user": "nix"}, {"options": {"application_name": "x", "timezone": "Asia/Tokyo"}},
               {"options": {"options": "-c work_mem=5MB -c datestyle=German"}}, {"options": {"client_encoding": "LATIN1"}},
               {"options": {"nix": "1"}}, {"options": {"work_mem": "x"}}, {"options": {"options": "--nix=1"}},
               {"options": {"extra_float_digits": "2", "search_path": "pg_catalog"}}, {"options": {"options": "-c nix.x=1"}}):
        login(r, **kw)
    for c in r.open:
        for name in ("work_mem", "datestyle", "client_encoding", "application_name", "timezone", "search_path",
                     "extra_float_digits"):
            c.query(f"show {name}")
            c.query(f"set {name} to default")
            c.query(f"reset {name}")
        c.query("reset all")
        c.query("discard all")
        c.query("select name, setting from pg_settings where source in ('client', 'session') and"
                " name <> 'synchronize_seqscans' order by 1")


@scenario
def settings_of_database_and_role(r):
    make(r, "alter database test set work_mem = '3MB'", "alter role postgres in database test set timezone = 'Asia/Tokyo'",
         "alter database test set default_transaction_isolation = 'serializable'")
    for sql in ("show work_mem", "show timezone", "show transaction_isolation", "set timezone = 'UTC'", "reset timezone",
                "set work_mem = '7MB'", "discard all", "show work_mem", "insert into t (v) values (1) returning v"):
        r.c.query(sql)


# --- notifications between sessions ---

@scenario
def notified(r):
    make(r)
    r.c.query("listen a")
    r.d.query("notify a, 'idle'")
    r.c.until("A")
    r.c.query("begin")
    r.d.query("notify a, 'in transaction'")
    r.c.query("select 1")
    r.c.query("commit")
    r.c.query("listen b")
    r.d.query("notify b; notify a; notify b, 'x'")
    for _ in range(3):
        r.c.until("A")
    r.d.execute("select pg_notify('a', $1)", ["y"])
    r.c.until("A")
    r.c.query("unlisten *")
    r.d.query("notify a")
    r.c.query("select 1")


@scenario
def status_while_idle(r):
    """The server reports what a reload changed."""
    r.c.query("select 1")
    n = len(r.c.seen)

    def reported(zone):
        r.c.query("select 1")
        return r.c.parameters["TimeZone"] == zone

    with Connection(r.endpoint, database=r.database) as other:
        for sql, zone in (("alter system set timezone = 'Asia/Seoul'", "Asia/Seoul"), ("alter system reset timezone", "UTC")):
            pgwire.check(other.query(sql))
            other.query("select pg_reload_conf()")
            postgres.until(lambda zone=zone: reported(zone), "the new setting is reported")
    r.c.seen[n:] = [m for m in r.c.seen[n:] if m.kind == "S"]
    r.c.query("show timezone")


# --- COPY ---

def copy_in(r, sql, *data, end=CopyDone, extended=False):
    """Wait for CopyInResponse, send, and wait for the end"""
    if extended:
        r.c.send(*pbe(sql), Flush)
    else:
        r.c.send(Query(sql))
    if r.c.until("GE" if extended else "GZ")[-1].kind in "ZE":
        if extended:
            r.c.ask(Sync)
        return
    r.c.send(*map(CopyData, data), end)
    if extended:
        r.c.send(Sync)
    r.c.until()


def copies(r, extended):
    make(r)
    sql = "copy t (v, w) from stdin"
    copy_in(r, sql, b"1\ta\n2\t\\N\n", extended=extended)
    copy_in(r, sql, b"1", b"0\tb\n", b"", b"11\tc\n", extended=extended)
    copy_in(r, sql, extended=extended)
    copy_in(r, sql, b"3\td\n", end=CopyFail("no more"), extended=extended)
    copy_in(r, sql, b"x\td\n", b"4\te\n", extended=extended)
    copy_in(r, sql, b"5\n", extended=extended)
    copy_in(r, sql, b"6\tx\n\\.\n7\ty\n", extended=extended)
    copy_in(r, sql, *(b"%d\tlong%d\n" % (i, i) for i in range(3000)), extended=extended)
    copy_in(r, sql + " (format csv)", b"8,\"x\"\n", extended=extended)
    copy_in(r, sql + " (format binary)", b"nonsense", extended=extended)
    copy_in(r, "copy nix from stdin", extended=extended)
    r.c.query("begin")
    copy_in(r, sql, b"20\tz\n", extended=extended)
    copy_in(r, sql, b"bad\tz\n", extended=extended)
    copy_in(r, sql, b"21\tz\n", extended=extended)
    r.c.query("rollback")
    r.c.query("select v, w from t where v < 30 or v > 2990 order by 1, 2")


@scenario
def copy_in_simple(r):
    copies(r, False)


@scenario
def copy_in_extended(r):
    copies(r, True)


@scenario
def copy_out(r):
    make(r, "insert into t (v, w) select g, 'w' || g from generate_series(1, 1000) g")
    for sql in ("copy t to stdout", "copy t (v) to stdout (format csv, header)", "copy t to stdout (format binary)",
                "copy (select 1 where false) to stdout", "copy (select 1/(500-v) from t order by v) to stdout",
                "copy nix to stdout", "copy (insert into t (v) values (1) returning id) to stdout",
                "copy (select repeat('x', 100000) from generate_series(1, 30)) to stdout",
                "copy (update t set v = 1/(500-v) returning v) to stdout", "select count(*) from t",
                "select 1; copy (select 2) to stdout; select 3", "begin; copy (select 1/0) to stdout", "rollback"):
        r.c.query(sql)
    r.c.ask(*pbe("copy t to stdout"), Sync)
    r.c.ask(*pbe("copy (delete from t where v < 5 returning v) to stdout"), Sync)
    r.c.ask(*pbe("copy (select 1) to stdout"), *pbe("select 1/0"), *pbe("select 2"), Sync)


@scenario
def copy_in_several(r):
    make(r)
    r.c.send(Query("insert into t (v) values (0); copy t (v) from stdin; select count(*) from t"))
    r.c.until("G")
    r.c.send(CopyData(b"1\n2\n"), CopyDone)
    r.c.until()
    r.c.send(Query("copy t (v) from stdin; copy t (v) from stdin"))
    r.c.until("G")
    r.c.send(CopyData(b"1\n"), CopyDone)
    r.c.until("G")
    r.c.send(CopyData(b"x\n"), CopyDone)
    r.c.until()
    r.c.query("select v from t order by 1")


@scenario
def copy_in_sent_ahead(r):
    """As libpq's pipelines can't, but others do: data before the server has said that it wants it"""
    make(r)
    r.c.ask(Query("copy t (v) from stdin"), CopyData(b"1\n"), CopyDone)
    r.c.ask(Query("copy t (v) from stdin"), CopyData(b"x\n"), CopyDone, Query("select 1"), count=2)
    r.c.ask(Query("copy nix from stdin"), CopyData(b"x\n"), CopyDone, Query("select 2"), count=2)
    r.c.ask(*pbe("copy t (v) from stdin"), CopyData(b"2\n"), CopyDone, Sync)
    r.c.ask(*pbe("copy t (v) from stdin"), Sync, CopyData(b"3\n"), CopyDone, Sync)
    r.c.ask(*pbe("copy nix from stdin"), CopyData(b"2\n"), CopyDone, Sync)
    r.c.ask(Query("copy t (v) from stdin"), Flush, Sync, CopyData(b"4\n"), Sync, CopyDone)
    r.c.query("select v from t order by 1")
    r.c.send(Query("copy t (v) from stdin"), CopyData(b"5\n"), Query("select 3"))
    r.c.rest()
    r.d.query("select v from t order by 1")


@scenario
def copy_in_left(r):
    """The client goes away in the middle: nothing of it is kept."""
    make(r)
    c = r.session()
    c.send(Query("copy t (v) from stdin"))
    c.until("G")
    c.send(CopyData(b"1\n"))
    c.abort()
    time.sleep(0.05)
    r.d.query("select count(*) from t")


# --- the extended protocol ---

EXTENDED = {
    "select": [once("select 1"), once("select $1::int + 1", [41]), once("select $1::text", [None]), once("select 1 where false"),
               once("select $1::bytea", [b"\0\1\2"], value_formats=[1], result_formats=[1])],
    "writes": [once("insert into t (v) values ($1) returning id", [1]), once("insert into t (v) values ($1)", [2]),
               once("update t set v = v + $1", [1]), once("delete from t where v = $1", [3]), once("select v from t order by id"),
               once("insert into t (v) values (1) returning now() = statement_timestamp(), current_query()")],
    "empty": [once(""), once(";"), once("-- x"), (Sync,), (Sync, Sync, Sync)],
    "errors": [once("select 1/0"), once("selec"), once("select $1::int", ["x"]), once("select $1::int"), once("select 1; select 2"),
               once("insert into t (id) values (1), (1)"), (Bind(statement="nix"), Sync), (Execute("nix"), Sync),
               (DescribeStatement("nix"), Sync), (DescribePortal("nix"), Sync), (CloseStatement("nix"), ClosePortal("nix"), Sync),
               (Parse("select 1", "a"), Parse("select 2", "a"), Sync), (Bind(statement="a"), Execute(), Sync),
               (Parse("select $1"), DescribeStatement(), Sync), (Bind([1, 2], "a"), Sync),
               (Bind([], "a", value_formats=[7]), Sync), (Bind([], "a", result_formats=[0, 0, 0]), Sync), once("select 1")],
    "named": [(Parse("insert into t (v) values ($1) returning v", "i", [23]), DescribeStatement("i"), Sync),
              (Bind([5], "i"), Execute(), Bind([6], "i"), Execute(), Sync), (Bind(["x"], "i"), Execute(), Sync),
              (Bind([7], "i"), DescribePortal(), Execute(), Sync), (CloseStatement("i"), Sync), (Bind([8], "i"), Sync),
              (Parse("select v from t order by v desc limit 2", "s"), Sync), (Bind([], "s"), Execute(), Sync)],
    "unnamed_survives": [(Parse("insert into t (v) values ($1) returning v"), Sync), (Bind([1]), Execute(), Sync),
                         (Bind([2]), Execute(), Sync), (DescribeStatement(), Sync), (Bind([3]), DescribePortal(), Execute(), Sync),
                         (Query("select 1"),), (Bind([4]), Execute(), Sync), once("select 2"), (Bind([]), Execute(), Sync)],
    "unnamed_after_error": [(Parse("select $1::int"), Sync), (Bind(["x"]), Sync), (Bind([1]), Execute(), Sync),
                            (Parse("selec"), Sync), (Bind([1]), Execute(), Sync)],
    "describe": [(Parse("select id, v, w from t where id = $1"), DescribeStatement(), Sync), (Parse("delete from t"),
                 DescribeStatement(), Bind(), DescribePortal(), Sync), (Parse("begin"), DescribeStatement(), Sync),
                 (Parse("insert into t (v) values ($1) returning *", types=[20]), DescribeStatement(), Sync),
                 (Parse("select $1, $2::date, $3::text[]"), DescribeStatement(), Sync)],
    "pipeline": [pbe("insert into t (v) values (1)") + pbe("insert into t (v) values (2) returning v") + pbe("select count(*) from t")
                 + (Sync,), pbe("insert into t (v) values (3)") + pbe("select 1/0") + pbe("insert into t (v) values (4)") + (Sync,),
                 once("select count(*) from t")],
    "pipeline_syncs": [pbe("insert into t (v) values (1)") + (Sync,) + pbe("select 1/0") + pbe("select 5") + (Sync,)
                       + pbe("insert into t (v) values (2)") + (Sync,), pbe("begin") + (Sync,) + pbe("insert into t (v) values (3)")
                       + (Sync,) + pbe("commit") + (Sync,) + pbe("select count(*) from t") + (Sync,),
                       pbe("begin") + (Sync,) + pbe("select 1/0") + (Sync,) + pbe("select 2") + (Sync,) + pbe("commit") + (Sync,)],
    "pipeline_transaction": [pbe("begin") + pbe("insert into t (v) values (1)") + pbe("commit") + (Sync,),
                             pbe("begin") + pbe("select 1/0") + pbe("commit") + (Sync,), (Query("rollback"),),
                             pbe("insert into t (v) values (2)") + pbe("begin") + pbe("insert into t (v) values (3)") + (Sync,),
                             pbe("rollback") + (Sync,), pbe("insert into t (v) values (4)") + pbe("commit")
                             + pbe("insert into t (v) values (5)") + pbe("select 1/0") + (Sync,),
                             pbe("insert into t (v) values (6)") + pbe("rollback") + pbe("insert into t (v) values (7)") + (Sync,),
                             pbe("begin") + pbe("insert into t (v) values (8)") + pbe("commit") + pbe("begin")
                             + pbe("insert into t (v) values (9)") + pbe("rollback") + pbe("insert into t (v) values (10)") + (Sync,),
                             pbe("begin") + pbe("insert into t (v) values (11)") + pbe("commit and chain") + (Sync,),
                             pbe("savepoint a") + pbe("insert into t (v) values (12)") + pbe("rollback to a") + pbe("commit") + (Sync,),
                             once("select v from t where id > 10 order by 1")],
    "pipeline_utility": [pbe("vacuum t") + (Sync,), pbe("select 1") + pbe("vacuum t") + (Sync,), pbe("vacuum t") + pbe("select 1") + (Sync,),
                         pbe("insert into t (v) values (1)") + pbe("create index concurrently x on t (v)") + (Sync,),
                         pbe("create index concurrently x on t (v)") + (Sync,), pbe("set work_mem = '5MB'") + pbe("select 1/0") + (Sync,),
                         once("show work_mem"), pbe("set local work_mem = '6MB'") + pbe("show work_mem") + (Sync,),
                         once("show work_mem"), pbe("lock t") + pbe("select 1") + (Sync,), pbe("create table u (i int)")
                         + pbe("insert into u values (1)") + pbe("drop table u") + (Sync,), pbe("discard all") + (Sync,),
                         pbe("select 1") + pbe("discard all") + (Sync,), pbe("create database test2") + (Sync,), pbe("drop database test2")
                         + (Sync,), pbe("select 1") + pbe("create database test2") + (Sync,)],
    "pipeline_notices": [pbe("drop table if exists nix") + pbe("insert into t (v) values (1)") + pbe("commit") + (Sync,),
                         pbe("do 'begin raise warning ''x''; end'") + (Sync,), pbe("begin") + pbe("begin") + pbe("commit") + (Sync,)],
    "deferred": [(Query("create table d (i int unique deferrable initially deferred)"),), once("insert into d values (1), (1)"),
                 pbe("insert into d values (1)") + pbe("insert into d values (1)") + pbe("select 5") + (Sync,),
                 pbe("insert into d values (1)") + pbe("insert into d values (1)") + pbe("set constraints all immediate") + (Sync,),
                 pbe("begin") + pbe("insert into d values (1), (1)") + pbe("commit") + pbe("select 6") + (Sync,), (Query("rollback"),),
                 pbe("insert into d values (3)") + (Sync,) + pbe("insert into d values (3)") + (Sync,) + pbe("select 7") + (Sync,),
                 once("table d")],
    "portals": [(Query("begin"),), (Parse("select v from t order by v"), Bind(portal="p"), Execute("p", 3), Sync),
                (Execute("p", 2), Sync), (Execute("p", 100), Sync), (Execute("p", 1), Sync), (ClosePortal("p"), Sync), (Execute("p"), Sync),
                (Query("rollback"),), (Query("begin"),), (Parse("select v from t order by v"), Bind(portal="p"), Bind(portal="q"),
                Execute("p", 1), Execute("q", 2), Execute("p", 1), Sync), (Bind(portal="p"), Sync), (Query("rollback"),),
                (Parse("select v from t"), Bind(portal="r"), Execute("r", 1), Sync), (Execute("r", 1), Sync),
                (Parse("select v from t order by v"), Bind(), Execute(rows=4), Execute(rows=4), Execute(rows=4), Sync),
                (Parse("insert into t (v) values (1), (2), (3) returning v"), Bind(), Execute(rows=1), Execute(rows=1), Sync),
                (Parse("insert into t (v) values (1), (2), (3) returning v"), Bind(), Execute(rows=1), Sync),
                (Parse("update t set v = 0"), Bind(), Execute(rows=1), Execute(rows=1), Sync), once("select count(*) from t")],
    "mixed": [(Parse("insert into t (v) values (1)", "a"), Query("select 1"), Sync) , (Bind([], "a"), Execute(), Query("select count(*) from t"),
              Sync), (Query("prepare b as select 2"),), (Bind([], "b"), Execute(), Sync), (Query("deallocate a"),), (Bind([], "a"), Sync),
              (Parse("select 3", "c"), Sync), (Query("execute c"),), (Query("select name, statement, from_sql from pg_prepared_statements"
              " order by 1"),), (Query("discard all"),), (Bind([], "c"), Sync)],
    "cached_plan": [(Parse("select * from t where id = 1", "a"), DescribeStatement("a"), Sync), (Bind([], "a"), Execute(), Sync), (Query("alter table t add z int"),),
                    (Bind([], "a"), Execute(), Sync), (Query("begin"),), (Bind([], "a"), Execute(), Sync), (Query("rollback"),)],
    "cancelled_rollback": [(Query("begin"),), once("select 1/0"), once("select 1"), (Parse("rollback"), Bind(), Execute(), Sync),
                           once("select 1")],
    "settings": [once("set timezone = 'Asia/Tokyo'"), once("show timezone"), pbe("begin") + pbe("set timezone = 'UTC'") + (Sync,),
                 pbe("rollback") + (Sync,), once("select set_config('timezone', 'Europe/Paris', false)"),
                 pbe("set application_name = 'p'") + pbe("insert into t (v) values (1)") + pbe("set datestyle = 'SQL'") + (Sync,)],
    "two_phase": [pbe("begin") + pbe("insert into t (v) values (1)") + pbe("prepare transaction 'diff'") + (Sync,),
                  once("commit prepared 'diff'"), once("select count(*) from t")],
    "notify": [once("listen a"), once("notify a, 'x'"), pbe("notify a, '1'") + pbe("notify a, '2'") + pbe("select 1") + (Sync,),
               pbe("notify a, '3'") + (Sync,) + pbe("notify a, '4'") + (Sync,), pbe("notify a, '5'") + pbe("select 1/0") + (Sync,)],
    "function_call": [(FunctionCall(177, [2, 3]),), (FunctionCall(177, [2]),), (FunctionCall(177, [2, "x"]),), (FunctionCall(99999),),
                      (FunctionCall(715, [4712]),), (Query("select lo_get(4712)"),), (Query("begin"),), (FunctionCall(952, [4712, 131072]),),
                      (FunctionCall(955, [0, "hello"]),), (FunctionCall(954, [0, 3], result_format=1),), (Query("select 1/0"),),
                      (FunctionCall(177, [2, 3]),), (Query("rollback"),), (FunctionCall(964, [4712]),),
                      (FunctionCall(177, [struct4 for struct4 in (b"\0\0\0\2", b"\0\0\0\3")], [1], 1),)],
    "after_error_until_sync": [(Parse("selec"), Parse("select 1", "x"), Bind([], "x"), Execute(), Flush, CloseStatement("x"), Sync),
                               (Bind([], "x"), Sync), (Parse("selec"), Query("select 4"), Sync)],
}
for _name, _rounds in EXTENDED.items():
    def _f(r, rounds=_rounds):
        make(r, "insert into t (v) select generate_series(1, 10)")
        for sent in rounds:
            # each Sync, Query and FunctionCall ends in a ReadyForQuery, but for what an error skips
            skipped = sent[0] == Parse("selec") and any(m[:1] == b"Q" for m in sent)
            r.c.ask(*sent, count=sum(m[:1] in (b"S", b"Q", b"F") for m in sent) - skipped)
    add(f"extended_{_name}", _f)


@scenario
def flush_without_sync(r):
    make(r)
    c = r.c
    c.send(Parse("insert into t (v) values ($1) returning v"), Flush)
    c.until("1")
    c.send(DescribeStatement(), Flush)
    c.until("T")
    c.send(Bind([1]), Flush)
    c.until("2")
    c.send(Execute(), Flush)
    c.until("C")
    r.d.query("select count(*) from t")
    c.send(Bind([2]), Execute(), Flush)
    c.until("C")
    r.d.query("select count(*) from t")
    c.ask(Sync)
    r.d.query("select count(*) from t")
    c.send(Parse("select 1/0"), Bind(), Execute(), Flush)
    c.until("E")
    c.send(*pbe("select 1"), Flush)
    c.ask(Sync)
    c.send(*pbe("select generate_series(1, 3)"), Flush)
    c.until("C")
    c.send(Flush, Flush)
    c.ask(Sync)


@scenario
def execute_seen_before_the_sync(r):
    """Nobody sees the row before the Sync; the session's own next statement does."""
    make(r)
    r.c.send(*pbe("insert into t (v) values (1)"), Flush)
    r.c.until("C")
    r.c.send(*pbe("select count(*) from t"), Flush)
    r.c.until("C")
    r.d.query("select count(*) from t")
    r.c.send(*pbe("select 1/0"), Flush)
    r.c.until("E")
    r.c.ask(Sync)
    r.d.query("select count(*) from t")


@scenario
def deferred_with_flush(r):
    make(r, "create table d (i int unique deferrable initially deferred)")
    r.c.send(*pbe("insert into d values (1), (1)"), Flush)
    r.c.until("C")
    r.c.ask(Sync)
    r.c.query("table d")


@scenario
def large_parameters(r):
    make(r)
    r.c.ask(*once("insert into t (w) values ($1) returning length(w)", ["x" * 4_000_000]))
    r.c.ask(*once("select w from t"))
    r.c.ask(*(m for i in range(500) for m in pbe("insert into t (v, w) values ($1, $2)", [i, "y" * 500])), Sync)
    r.c.ask(*(m for i in range(300) for m in (*pbe("select $1::text", ["z" * 1000]), Sync)), count=300)
    r.c.query("select count(*), sum(length(w)) from t")


@scenario
def broken_messages(r):
    """The session ends with a protocol violation; only its code is compared."""
    for bad in (pgwire.message("y", b"x"), b"Q\0\0\0\2", pgwire.message("B", b"\0"), pgwire.message("Q", b"no end"),
 pgwire.message("D", b"X\0"), pgwire.message("C", b"?\0"),
                pgwire.message("P", b"a\0b\0\0\5"), b"Q\x7f\xff\xff\xff"):
        c = r.session()
        n = len(c.seen)
        got = []
        try:
            c.send(bad, Sync)
            got = c.until("ZE")
        except (pgwire.Closed, OSError):
            pass
        # a server may end it without a word
        r.note([(m.name, m.data.get("code") if m.kind == "E" else m.data) for m in got] or [("ErrorResponse", "08P01")])
        del c.seen[n:]
        c.abort()


@scenario
def parallel_sessions(r):
    """Many at once; each sees its own."""
    make(r)
    sessions = [r.session() for _ in range(12)]

    def work(n, c):
        for i in range(30):
            c.query(f"insert into t (id, v) values ({n * 1000 + i + 100}, {i}) returning id, v")
            c.ask(*once("select $1::int", [n * i]))

    threads = [threading.Thread(target=work, args=x) for x in enumerate(sessions)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    r.d.query("select count(*), sum(v) from t")


# --- random sequences ---

PIECES = ["insert into t (v) values (1)", "insert into t (v) values (2) returning v", "update t set v = v + 1", "select count(*) from t",
          "select 1", "select 1/0", "begin", "begin", "commit", "commit", "rollback", "savepoint a", "rollback to a", "release a",
          "insert into d values (1)", "delete from d", "set timezone = 'Asia/Tokyo'", "reset timezone", "set local timezone = 'GMT'",
          "show timezone", "notify a, 'x'", "listen a", "", "selec", "insert into t (id) values (1)", "drop table if exists nix",
          "create temp table x (i int) on commit drop", "select v from t order by id limit 3", "set constraints all immediate",
          "declare c cursor for select 1", "fetch c", "prepare s as select 7", "execute s", "deallocate s", "commit and chain",
          "copy (select 1) to stdout", "copy (insert into t (v) values (3) returning v) to stdout", "vacuum t", "lock t",
          "do 'begin raise notice ''n''; end'", "select set_config('datestyle', 'German', true)", "discard all",
          "insert into t (v) values (1) returning now() = statement_timestamp()", "call p()"]


def random_rounds(seed):
    """Rounds of messages, each written as the call that makes it"""
    rnd = random.Random(seed)
    rounds = []
    for _ in range(rnd.randint(5, 15)):
        kind = rnd.random()
        if kind < 0.35:
            rounds.append([f"Query({rnd.choice(PIECES)!r})"])
        elif kind < 0.5:
            rounds.append([f"Query({'; '.join(rnd.choices(PIECES, k=rnd.randint(2, 4)))!r})"])
        elif kind < 0.55:
            rounds.append([f"Query({sql!r})" for sql in rnd.choices(PIECES, k=rnd.randint(2, 4))])
        else:
            sent = []
            for _ in range(rnd.randint(1, 6)):
                sent += random_piece(rnd)
                if rnd.random() < 0.25:
                    sent.append("Sync")
            rounds.append([*sent, "Sync"])
    return rounds


def random_piece(rnd):
    sql = repr(rnd.choice(PIECES))
    how = rnd.random()
    if how < 0.6:
        return [f"Parse({sql})", "Bind()", "Execute()"]
    if how < 0.7:
        return [f"Parse({sql})", "Bind()", "DescribePortal()", f"Execute(rows={rnd.choice((0, 1, 2))})"]
    if how < 0.8:
        return [f"Parse({sql})", "DescribeStatement()", "Bind()", "Execute()"]
    name = repr(rnd.choice("xyz"))
    if how < 0.9:
        portals = [repr(rnd.choice(("", "p"))) for _ in range(2)]
        return [f"Parse({sql}, {name})", f"Bind([], {name}, {portals[0]})", f"Execute({portals[1]})"]
    return rnd.choice(([f"Bind([], {name})", "Execute()"], [f"CloseStatement({name})"], ["ClosePortal('p')"], ["Flush"],
                       ["Execute()"], [f"DescribeStatement({name})"], ["Bind()", "Execute()"]))


def rounds_scenario(rounds):
    def f(r):
        make(r, "create table d (i int unique deferrable initially deferred)",
             "create procedure p() language plpgsql as 'begin insert into t (v) values (5); commit; end'",
             "insert into t (v) select generate_series(1, 10)")
        for sent in rounds:
            encoded = [eval(m) for m in sent]  # our own text
            r.c.ask(*encoded, count=sum(m[:1] in b"SQ" for m in encoded))
        r.d.query("select v from t order by id")
        r.d.query("table d")
    return f


@functools.cache
def random_scenario(seed):
    return rounds_scenario(random_rounds(seed))


# --- the tests ---

@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.xdist_group(n)) for n in SCENARIOS])
def test_same(name, variant, rig, proxies):
    both(SCENARIOS[name], rig, proxies, variant)


@pytest.mark.parametrize("variant", ["protected", "bare", "moved"])
def test_random(variant, rig, proxies):
    for seed in range(SEED, SEED + COUNT):
        try:
            both(random_scenario(seed), rig, proxies, variant)
        except pytest.fail.Exception as e:
            pytest.fail(f"DIFF_SEED={seed} DIFF_COUNT=1: {e}", pytrace=False)
        except pytest.xfail.Exception:
            pass


def shrink(seed, variant, rig, proxies):
    """The rounds of a seed that fails, without those that it fails without; None if it does not fail"""
    def fails(rounds):
        try:
            both(rounds_scenario(rounds), rig, proxies, variant)
        except (pytest.fail.Exception, AssertionError) as e:
            return str(e)
        except pytest.xfail.Exception:
            pass
        return None

    rounds = random_rounds(seed)
    if not (why := fails(rounds)):
        return None
    for n in reversed(range(len(rounds))):
        fewer = rounds[:n] + rounds[n + 1:]
        if said := fails(fewer):
            rounds, why = fewer, said
    for n, sent in enumerate(rounds):
        for m in reversed(range(len(sent) - 1)):
            fewer = [*rounds[:n], rounds[n][:m] + rounds[n][m + 1:], *rounds[n + 1:]]
            if said := fails(fewer):
                rounds, why = fewer, said
    return rounds, why


def main():
    """DIFF_SEED, DIFF_COUNT; argument: the variant. Prints each seed that fails, as short as it can be had."""
    variant = sys.argv[1] if len(sys.argv) > 1 else "protected"
    bad = 0
    with postgres.Rig() as rig:
        rig.server(max_prepared_transactions=10)
        proxy = rig.proxy(rig.servers, PROXY, **VARIANTS[variant][0])
        for seed in range(SEED, SEED + COUNT):
            if found := shrink(seed, variant, rig, lambda _: proxy):
                bad += 1
                rounds, why = found
                print(f"--- seed {seed}, {variant}")
                for sent in rounds:
                    print(f"c.ask({', '.join(sent)})")
                print(why, flush=True)
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
