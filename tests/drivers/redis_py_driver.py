"""redis-py through the gateway: `STEP [PROTOCOL]`. Connection facts come from the REDIS_* environment; one line out."""

import os
import sys
import threading

import redis
from redis.exceptions import NoPermissionError, NoScriptError, RedisError, ResponseError, WatchError

PROTOCOL = int(sys.argv[2]) if len(sys.argv) > 2 else 2
PLACE = {"host": os.environ["REDIS_HOST"], "port": int(os.environ["REDIS_PORT"]), "socket_timeout": 60}
if "REDIS_CA" in os.environ:
    PLACE |= {"ssl": True, "ssl_ca_certs": os.environ["REDIS_CA"], "ssl_certfile": os.environ["REDIS_CERT"],
              "ssl_keyfile": os.environ["REDIS_KEY"], "ssl_check_hostname": True}


def client(**more):
    return redis.Redis(**PLACE, protocol=PROTOCOL, decode_responses=True, **more)


def basics():
    r = client()
    r.set("text", "value")
    r.hset("hash", mapping={"a": 1, "b": 2})
    r.rpush("list", *range(5))
    r.zadd("scores", {"one": 1, "two": 2.5})
    r.set("binary", bytes(range(256)))
    raw = redis.Redis(**PLACE, protocol=PROTOCOL).get("binary")
    hash_ = sorted(r.hgetall("hash").items())
    scores = [tuple(pair) for pair in r.zrange("scores", 0, -1, withscores=True)]
    return f"{r.get('text')} {hash_} {r.lrange('list', 0, -1)} {scores} {raw == bytes(range(256))} {r.incr('n', 41)}"


def pipeline():
    r = client()
    with r.pipeline(transaction=False) as p:
        for n in range(10_000):
            p.incrby("sum", n)
        totals = p.execute()
    return f"{len(totals)} {totals[-1]} {totals == sorted(totals)}"


def transaction():
    r, other = client(), client()
    with r.pipeline(transaction=True) as p:
        answers = p.set("a", 1).incr("a").get("a").execute()
    with r.pipeline() as p:
        p.watch("a")
        other.set("a", 10)
        p.multi()
        p.set("a", 99)
        try:
            p.execute()
            outcome = "executed"
        except WatchError as e:
            outcome = type(e).__name__
    with r.pipeline(transaction=True) as p:
        p.set("b", 1).lpush("b", 1).get("b")
        wrong = p.execute(raise_on_error=False)
    return f"{answers} {outcome} {r.get('a')} {type(wrong[1]).__name__} {wrong[2]}"


def pubsub():
    r = client()
    heard = r.pubsub()
    heard.subscribe("news")
    heard.psubscribe("new*")
    kinds = [heard.get_message(timeout=30)["type"] for _ in range(2)]
    receivers = client().publish("news", "hello")
    messages = [heard.get_message(timeout=30) for _ in range(2)]
    heard.ping()
    pong = heard.get_message(timeout=30) is not None
    heard.unsubscribe()
    heard.punsubscribe()
    kinds += [heard.get_message(timeout=30)["type"] for _ in range(2)]
    heard.close()
    return f"{receivers} {kinds} {[(m['type'], m['data']) for m in messages]} {pong} {r.ping()}"


def sharded():
    r = client()
    heard = r.pubsub()
    heard.ssubscribe("shard")
    first = heard.get_message(timeout=30)["type"]
    r.spublish("shard", "piece")
    message = heard.get_message(timeout=30)
    heard.sunsubscribe("shard")
    last = heard.get_message(timeout=30)["type"]
    return f"{first} {message['type']} {message['data']} {last}"


def blocking():
    r, other = client(), client()
    pushed = threading.Timer(0.5, lambda: other.rpush("queue", "job"))
    pushed.start()
    popped = r.blpop("queue", timeout=60)
    nothing = r.blpop("queue", timeout=0.1)
    other.xadd("stream", {"field": "value"})
    read = r.xread({"stream": "0"}, block=60_000)
    entries = list(read.values())[0][0] if isinstance(read, dict) else read[0][1]
    pushed.join()
    return f"{list(popped)} {nothing} {entries[0][1]}"


def scripts():
    r = client()
    double = r.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1]) * 2")
    values = [double(keys=["counter"], args=[n]) for n in (5, 6)]
    try:
        r.evalsha("0" * 40, 0)
        outcome = "ran"
    except NoScriptError as e:
        outcome = type(e).__name__
    r.function_load("#!lua name=demo\nredis.register_function('twice', function(keys, args) return args[1] * 2 end)",
                    replace=True)
    return f"{values} {outcome} {r.fcall('twice', 0, 21)} {r.eval('return {1, 2, {3}}', 0)}"


def reconnects():
    r = client()
    name = r.client_setname("named"), r.client_getname()
    r.connection_pool.disconnect()
    return f"{name} {r.client_getname()} {r.ping()}"


def denied():
    """FLUSHALL is denied by role: in a pipeline, in a transaction, alone."""
    r = client()
    r.set("kept", 1)
    with r.pipeline(transaction=False) as p:
        p.set("x", 1).flushall().get("x")
        answers = p.execute(raise_on_error=False)
    with r.pipeline(transaction=True) as p:
        p.set("never", 1).flushall()
        try:
            p.execute()
            outcome = "executed"
        except RedisError as e:
            outcome = type(e).__name__
    try:
        r.flushall()
        alone = "ran"
    except NoPermissionError as e:
        alone = type(e).__name__
    return f"{answers[0]} {type(answers[1]).__name__} {answers[2]} {outcome} {alone} {r.get('kept')} {r.get('never')}"


def refused():
    """The role denies the connection: what does a user of this library see?"""
    try:
        client().ping()
        return "connected"
    except RedisError as e:
        return f"{type(e).__name__}: {e}"


def login():
    """The user's own name and password, for a database registered with `auth: passthrough`."""
    user, password = sys.argv[3:5]
    try:
        return client(username=user, password=password).acl_whoami()
    except RedisError as e:
        return f"{type(e).__name__}: {e}"


def cluster():
    r = redis.RedisCluster(**PLACE, protocol=PROTOCOL, decode_responses=True)
    for n in range(100):
        r.set(f"key{n}", n)
    total = sum(int(r.get(f"key{n}")) for n in range(100))
    with r.pipeline() as p:
        for n in range(100):
            p.incr(f"key{n}")
        after = sum(p.execute())
    found = len(set(r.scan_iter("key*", count=10)))
    return f"{total} {after} {found} {r.dbsize()}"


try:
    print(globals()[sys.argv[1]]())
except ResponseError as e:
    sys.exit(f"{type(e).__name__}: {e}")
