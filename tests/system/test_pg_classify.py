"""What may be repeated, asked of a real PostgreSQL's catalog."""
import os
import pathlib
import re
import subprocess

import pytest

import postgres

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CLASSIFY = os.environ.get("PG_CLASSIFY", str(ROOT / "build/tests/support/pg-classify"))

OBJECTS = """
create schema other;
create sequence s;
create table plain (id int primary key, a text);
create materialized view matview as select 1 as a;
create table parent (id int) partition by range (id);
create table child partition of parent for values from (0) to (10);
create temp table temporary (a int);
create table secured (id int);
alter table secured enable row level security;
create table ruled (id int);
create rule r as on insert to ruled do also select 1;
create table twice (id int);
create view other.twice as select nextval('s') from (select 1) x;
create view a_view as select 1 as a;
create extension file_fdw;
create server f foreign data wrapper file_fdw;
create foreign table remote (id int) server f options (filename '/dev/null');
create table mixed (id int) partition by range (id);
create table mixed_middle partition of mixed for values from (0) to (10) partition by range (id);
create foreign table mixed_child partition of mixed_middle for values from (0) to (5) server f
    options (filename '/dev/null');
create table heir () inherits (plain);

create function safe_f(int) returns int language sql immutable as 'select 1';
create function stable_f(int) returns int language sql stable as 'select 1';
create function volatile_f(int) returns int language sql as 'select 1';
create function both_f(int) returns int language sql stable as 'select 1';
create function other.both_f(text) returns int language plpgsql as 'begin return 1; end';
create function default_f(int default 1) returns int language sql stable as 'select 1';
create function lower(plain) returns int language plpgsql as 'begin return 1; end';
create function fullname(plain) returns text language sql volatile as 'select 1::text';
create function shortname(plain) returns text language sql stable as 'select 1::text';
create function volatile_sum(int, int) returns int language plpgsql as 'begin return $1 + $2; end';
create aggregate odd_sum(int) (sfunc = volatile_sum, stype = int);
create aggregate even_sum(int) (sfunc = int4pl, stype = int);
create procedure proc() language sql as 'select 1';
create operator === (leftarg = int, rightarg = int, function = volatile_sum);
create operator ==== (leftarg = int, rightarg = int, function = int4pl);
create function volatile_plain(plain, plain) returns int language plpgsql as 'begin return 1; end';
create operator # (leftarg = plain, rightarg = plain, function = volatile_plain);

create type mood as enum ('sad', 'ok');
create type pair as (a int, b int);
create domain free_domain as int;
create domain strict_domain as int check (value > 0);
create type span as range (subtype = int4);
create extension citext;
"""

SAFE = [
    "select * from plain", "select * from public.plain where id = 1", "select * from matview", "select * from parent",
    "select * from child", "select * from heir", "select 'pg_class'::regclass, relname from pg_class",
    "select safe_f(1), stable_f(2)", "select even_sum(id), count(*) from plain", "select id ==== 2 from plain",
    "select 'ok'::mood", "select '{ok}'::mood[]", "select 'a'::citext", "select 1::free_domain", "select p.shortname from plain p",
    "select now(), current_date, upper('x'), date '2020-01-01' + interval '1 day'",
    "select p.id, p.a from plain p join child c using (id) where p.a like 'x%' and p.id in (1, 2) order by 1",
    "select generate_series(1, 3)", "select to_jsonb(p) from plain p", "select extract(year from now())",
    "select trim(both ' ' from 'x'), position('a' in 'b'), overlay('abc' placing 'x' from 1), 'a' similar to 'b'",
    "select now() at time zone 'UTC', '2020-01-01'::timestamptz::date, 'a' || 1, 5::numeric(10, 2)",
    "select * from information_schema.tables", "select * from pg_tables", "select * from pg_settings",
    "select array_agg(id order by id) filter (where id > 1) over (partition by a) from plain",
    "select n.nspname, c.relname, pg_get_userbyid(c.relowner) from pg_class c left join pg_namespace n on n.oid = c.relnamespace"
    " where c.relkind in ('r', 'p', '') and n.nspname !~ '^pg_toast' and pg_table_is_visible(c.oid) order by 1, 2",
]
UNSAFE = [
    "select * from temporary", "select * from secured", "select * from ruled", "select * from twice", "select * from s",
    "select * from a_view", "select * from remote", "select * from mixed", "select * from mixed_middle",
    "select * from absent", "select * from pg_stat_user_tables",
    "select volatile_f(1)", "select both_f(1)", "select default_f()", "select lower('x')", "select odd_sum(id) from plain",
    "select p.fullname from plain p", "select (p).fullname from plain p", "select id === 2 from plain", "select p # p from plain p",
    "select '(1,2)'::pair", "select 1::strict_domain", "select '[1,2]'::span", "select '(1,x)'::plain",
    "select random()", "select nextval('s')", "select clock_timestamp()", "select gen_random_uuid()", "select pg_sleep(0)",
    "select txid_current()", "select set_config('a.b', 'c', false)", "select current_query()", "select * from pg_locks",
    "select * from plain for update", "select pg_advisory_lock(1)", "select table_to_xml('a_view', true, true, '')",
    "select * from plain tablesample system (1)",
]


def classify(server, statements, dbname="postgres"):
    query = subprocess.run([CLASSIFY, "query"], capture_output=True, text=True, check=True).stdout
    rows = server.psql("set search_path = pg_catalog; " + query, dbname).splitlines()
    assert len(rows) > 2000
    records = ["+" + row.replace("|", "", 1) for row in rows] + list(statements)
    out = subprocess.run([CLASSIFY], input="\0".join(records), capture_output=True, text=True, check=True).stdout
    return [line.split(" ") for line in out.splitlines()]


@pytest.fixture(scope="module")
def server():
    with postgres.Rig() as rig:
        s = rig.server()
        s.psql(OBJECTS)
        yield s


def test_list_of_a_database(server):
    got = classify(server, SAFE + UNSAFE)
    assert [s for s, g in zip(SAFE, got) if "p" not in g[-1]] == []
    assert [s for s, g in zip(SAFE + UNSAFE, got) if "UNKNOWN" in g] == []
    assert [s for s, g in zip(UNSAFE, got[len(SAFE):]) if "p" in g[-1]] == []


def test_what_is_built_in_may_not_do_anything(server):
    got = classify(server, ["select random(), pg_sleep(0), nextval('s'), set_config('a.b', 'c', true)",
                            "select now(), lower(a) from plain", "select volatile_f(1)", "select both_f(1)"])
    assert ["FUNCTION" in g for g in got] == [False, True, True, True]  # lower() has an overload here


def test_a_volatile_cast_makes_all_unsafe(server):
    server.psql("create database casts")
    sql = ["select id from pg_class where oid = 1", "select now()"]
    assert all("p" in g[-1] for g in classify(server, sql, "casts"))
    server.psql("create type pair as (a int, b int);"
                "create function f(pair) returns int language plpgsql as 'begin return 1; end';"
                "create cast (pair as int) with function f(pair) as implicit", "casts")
    got = classify(server, sql, "casts")
    assert not any("p" in g[-1] for g in got)
    assert not any("FUNCTION" in g for g in got[1:])


def test_listed_views_call_nothing_volatile(server):
    """Views of PostgreSQL's own that are on the list: no volatile function in them, or in views that they use."""
    listed = server.psql(
        "select c.oid::regclass from pg_class c where relkind = 'v' and relname in ('pg_group', 'pg_indexes', 'pg_matviews',"
        " 'pg_policies', 'pg_roles', 'pg_rules', 'pg_settings', 'pg_tables', 'pg_user', 'pg_views', 'columns',"
        " 'constraint_column_usage', 'key_column_usage', 'referential_constraints', 'routines', 'schemata', 'sequences',"
        " 'table_constraints', 'tables', 'views')").split()
    assert len(listed) == 20
    assert all("p" in g[-1] for g in classify(server, [f"select * from {v}" for v in listed]))
    volatile = set(server.psql("select oid from pg_proc where provolatile = 'v'").split())
    trees = dict(line.split("|", 1) for line in server.psql(
        "select ev_class, ev_action from pg_rewrite where rulename = '_RETURN'").splitlines())
    names = dict(line.split("|") for line in server.psql("select oid::regclass, oid from pg_class where relkind = 'v'").splitlines())
    left, seen, all_called = [names[v] for v in listed], set(), set()
    while left:
        view = left.pop()
        seen.add(view)
        called = set(re.findall(r":(?:\w*func\w*id|\w*fnoid|\w*func) (\d+)", trees[view]))
        assert not called & volatile, view
        all_called |= called
        left += [r for r in re.findall(r":relid (\d+)", trees[view]) if r in trees and r not in seen]
    assert len(all_called) > 20
