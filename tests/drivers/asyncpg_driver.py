"""asyncpg through the gateway. Connection facts come from the PG* environment; one step per run, one line out."""

import asyncio
import io
import sys

import asyncpg


async def prepare(conn):
    statement = await conn.prepare("select $1::int + $2::int")
    values = [await statement.fetchval(10**n, 2 * 10**n) for n in range(3)]
    try:
        await conn.fetchval("select 1 / $1::int", 0)
        code = "none"
    except asyncpg.PostgresError as e:
        code = e.sqlstate
    return f"{values} {code} {await conn.fetchval('select $1::text', 'usable')}"


async def copy(conn):
    await conn.execute("create temporary table numbers (n int, name text)")
    status = await conn.copy_records_to_table("numbers", records=((n, str(n)) for n in range(50_000)))
    total = await conn.fetchval("select sum(n) from numbers")
    out = io.BytesIO()
    await conn.copy_from_query("select n, 'x' from numbers", output=out)
    return f"{status} {total} {len(out.getvalue())}"


async def notify(conn):
    heard = asyncio.get_running_loop().create_future()
    await conn.add_listener("news", lambda _conn, _pid, channel, payload: heard.set_result(f"{channel}: {payload}"))
    other = await asyncpg.connect()
    await other.execute("notify news, 'hello'")
    await other.close()
    return await asyncio.wait_for(heard, 30)


async def cursor(conn):
    count = total = 0
    async with conn.transaction():
        async for (n,) in conn.cursor("select generate_series(1, 20000)", prefetch=500):
            count += 1
            total += n
    return f"{count} {total}"


async def timeout(conn):
    try:
        await conn.execute("select pg_sleep(120)", timeout=0.5)
        outcome = "finished"
    except asyncio.TimeoutError:
        outcome = "TimeoutError"
    return f"{outcome} {await conn.fetchval('select $1::text', 'usable')}"


async def main():
    conn = await asyncpg.connect()
    try:
        print(await globals()[sys.argv[1]](conn))
    finally:
        await conn.close()


asyncio.run(main())
