"""The simulator's toy PostgreSQL answers as a real one does, message by message."""
import os
import pathlib
import subprocess

from postgres import Rig

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("HOLDFAST", ROOT / "build/src/ctl/holdfast")).resolve().parents[2]
TABLES = """
create table accounts (id int primary key, n bigint not null default 0);
insert into accounts select generate_series(1, 6);
create table log (id bigserial primary key, v bigint not null);
create table once (v bigint, constraint once_v_key unique (v) deferrable initially deferred);
insert into once values (0);
grant all on all tables in schema public to toy;
grant all on all sequences in schema public to toy
"""


def test_streams():
    with Rig() as rig:
        server = rig.server(timezone="'Etc/UTC'")
        server.psql("create role toy login")
        server.psql("create database toy")
        server.psql(TABLES, dbname="toy")
        p = subprocess.run([BUILD / "tests/sim/pg-streams", "--connect",
                            f"{server.socket_dir}/.s.PGSQL.{server.port}", ROOT / "tests/sim/pg/streams.txt"],
                           capture_output=True, text=True, timeout=120)
        assert p.returncode == 0, p.stderr
