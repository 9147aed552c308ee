"""psycopg 3 through the gateway. Connection facts come from the PG* environment; one step per run, one line out."""

import sys
import threading
import time

import psycopg


def wait_until_running(text):
    with psycopg.connect(autocommit=True) as watcher:
        for _ in range(3000):
            row = watcher.execute(
                "select count(*) from pg_stat_activity where query = %s and state = 'active'", (text,)
            ).fetchone()
            if row[0] == 1:
                return
            time.sleep(0.01)
    raise SystemExit(f"{text} never ran")


def pipeline():
    with psycopg.connect() as conn, conn.pipeline():
        cursors = [conn.execute("select %s::int", (n,)) for n in range(100)]
        return sum(c.fetchone()[0] for c in cursors)


def pipeline_error():
    with psycopg.connect(autocommit=True) as conn:
        try:
            with conn.pipeline():
                conn.execute("select 1/%s", (0,))
                conn.execute("select 'never'")
            outcome = "finished"
        except psycopg.errors.DivisionByZero as e:
            outcome = type(e).__name__
        return f"{outcome} {conn.execute('select %s', ('after',)).fetchone()[0]}"


def copy():
    with psycopg.connect() as conn:
        conn.execute("create temporary table numbers (n bigint, name text)")
        with conn.cursor() as cur, cur.copy("copy numbers from stdin") as into:
            for n in range(100_000):
                into.write_row((n, f"name {n}"))
        count, total = conn.execute("select count(*), sum(n) from numbers").fetchone()
        with conn.cursor() as cur, cur.copy("copy numbers to stdout (format binary)") as out:
            out.set_types(["int8", "text"])
            rows = sum(1 for _ in out.rows())
        return f"{count} {total} {rows}"


def cancelled(method):
    text = "select pg_sleep(120)"
    with psycopg.connect(autocommit=True) as conn:

        def canceller():
            wait_until_running(text)
            getattr(conn, method)()

        thread = threading.Thread(target=canceller)
        thread.start()
        try:
            conn.execute(text)
            outcome = "finished"
        except psycopg.errors.QueryCanceled as e:
            outcome = type(e).__name__
        thread.join()
        return f"{outcome} {conn.execute('select %s', ('usable',)).fetchone()[0]}"


def notify():
    with psycopg.connect(autocommit=True) as listener, psycopg.connect(autocommit=True) as sender:
        listener.execute("listen one")
        listener.execute("listen two")
        sender.execute("notify one, 'channel one'")
        sender.execute("notify two, 'channel two'")
        return "|".join(n.payload for n in listener.notifies(timeout=30, stop_after=2))


def large_object():
    blob = bytes(range(256)) * 4096
    with psycopg.connect() as conn:
        oid = conn.execute("select lo_create(0)").fetchone()[0]
        fd = conn.execute("select lo_open(%s, 131072 + 262144)", (oid,)).fetchone()[0]
        for at in range(0, len(blob), 65536):
            conn.execute("select lowrite(%s, %b)", (fd, blob[at : at + 65536]))
        conn.commit()
        back = conn.execute("select lo_get(%s)", (oid,)).fetchone()[0]
        conn.execute("select lo_unlink(%s)", (oid,))
        return f"{len(back)} {bytes(back) == blob}"


def cursor():
    with psycopg.connect() as conn, conn.cursor("on_the_server") as cur:
        cur.itersize = 1000
        cur.execute("select generate_series(1, 50000)")
        values = [n for (n,) in cur]
        return f"{len(values)} {sum(values)}"


def binary():
    with psycopg.connect() as conn:
        row = conn.execute(
            "select %b::int8, %b::bool, %b::float8, %b::text, %b::bytea", (42, True, 1.5, "text", b"\x00\xff"), binary=True
        ).fetchone()
        return f"{row[0]} {row[1]} {row[2]} {row[3]} {bytes(row[4])!r}"


STEPS = {
    "pipeline": pipeline,
    "pipeline_error": pipeline_error,
    "copy": copy,
    "cancel": lambda: cancelled("cancel"),
    "cancel_safe": lambda: cancelled("cancel_safe"),
    "notify": notify,
    "large_object": large_object,
    "cursor": cursor,
    "binary": binary,
}
print(STEPS[sys.argv[1]]())
