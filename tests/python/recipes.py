"""Recipes people copy, run through Python's redis client: recipes.py PORT PROTOCOL RECIPE.

Ends with a traceback and code 1 where one does not hold.
"""

import sys
import threading
import time

import redis
from redis.exceptions import LockNotOwnedError

PORT, PROTOCOL = int(sys.argv[1]), int(sys.argv[2])
PATIENCE = 20


def connect(**options):
    return redis.Redis(host="127.0.0.1", port=PORT, protocol=PROTOCOL, decode_responses=True, **options)


def eventually(condition):
    """Waits until it holds; what it gave."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.005)
    raise AssertionError("it never held")


def pipelines(r):
    """Many commands in one round trip, and a transaction that begins again when somebody else was quicker."""
    pipe = r.pipeline(transaction=False)
    for n in range(1000):
        pipe.rpush("pipeline:list", n)
        pipe.lindex("pipeline:list", -1)
    replies = pipe.execute()
    assert replies == [reply for n in range(1000) for reply in (n + 1, str(n))]

    # An error stands where its command stood, and the others ran.
    pipe = r.pipeline(transaction=False)
    pipe.set("pipeline:text", "x").incr("pipeline:text").get("pipeline:text")
    replies = pipe.execute(raise_on_error=False)
    assert replies[0] is True and isinstance(replies[1], redis.ResponseError) and replies[2] == "x", replies

    r.set("pipeline:stock", 100)

    def buy():
        own = connect()
        for _ in range(10):
            own.transaction(
                lambda pipe: (lambda stock: (pipe.multi(), pipe.set("pipeline:stock", stock - 1)))(
                    int(pipe.get("pipeline:stock"))
                ),
                "pipeline:stock",
            )

    run_at_once([buy] * 5)
    assert r.get("pipeline:stock") == "50"


def locks(r):
    """One at a time holds the lock; who comes too late to release it hears so; who dies loses it."""
    r.set("lock:counter", 0)

    def count():
        own = connect()
        for _ in range(20):
            with own.lock("lock:name", timeout=10, blocking_timeout=PATIENCE, sleep=0.002):
                own.set("lock:counter", int(own.get("lock:counter")) + 1)

    run_at_once([count] * 4)
    assert r.get("lock:counter") == "80"

    late = r.lock("lock:short", timeout=0.05)
    assert late.acquire()
    other = connect().lock("lock:short", timeout=10)
    assert other.acquire(blocking_timeout=PATIENCE)
    try:
        late.release()
        raise AssertionError("a lock was released by one that no longer held it")
    except LockNotOwnedError:
        pass
    assert other.owned() and other.extend(5, replace_ttl=True)
    other.release()
    assert not r.exists("lock:short")


def streams(r):
    """A group of consumers: what a dead one took is claimed by another, and nothing is done twice or lost."""
    r.xgroup_create("stream:jobs", "workers", id="0", mkstream=True)
    jobs = {r.xadd("stream:jobs", {"job": n}) for n in range(20)}
    taken = r.xreadgroup("workers", "dies", {"stream:jobs": ">"}, count=8)
    assert len(messages(taken)) == 8
    done = set()
    for key, _ in messages(r.xreadgroup("workers", "lives", {"stream:jobs": ">"}, count=100)):
        done.add(key)
        assert r.xack("stream:jobs", "workers", key) == 1
    assert len(done) == 12
    assert r.xpending("stream:jobs", "workers")["pending"] == 8

    time.sleep(0.06)
    start = "0-0"
    while True:
        start, claimed, *_ = r.xautoclaim("stream:jobs", "workers", "lives", 50, start_id=start, count=3)
        for key, _ in claimed:
            assert key not in done
            done.add(key)
            r.xack("stream:jobs", "workers", key)
        if start == "0-0":
            break
    assert done == jobs
    assert r.xpending("stream:jobs", "workers")["pending"] == 0

    # One that waits is woken by a new job.
    waiter = connect()
    thread = threading.Timer(0.1, lambda: connect().xadd("stream:jobs", {"job": "new"}))
    thread.start()
    woken = waiter.xreadgroup("workers", "lives", {"stream:jobs": ">"}, block=PATIENCE * 1000)
    thread.join()
    assert messages(woken)[0][1] == {"job": "new"}


def messages(reply):
    """The entries of the one stream that was read, in either protocol's shape."""
    if isinstance(reply, dict):
        return [entry for batch in reply["stream:jobs"] for entry in batch]
    return reply[0][1]


def pub_sub(r):
    """Subscribers hear what is published, and go on after their connection was cut."""
    heard = []
    subscriber = connect().pubsub(ignore_subscribe_messages=True)
    subscriber.subscribe(**{"news": lambda message: heard.append(message["data"])})
    subscriber.psubscribe(**{"alerts.*": lambda message: heard.append((message["channel"], message["data"]))})
    thread = subscriber.run_in_thread(sleep_time=0.01, exception_handler=lambda *_: None)

    def publish(channel, text):
        eventually(lambda: r.publish(channel, text))
        eventually(lambda: heard and heard[-1] in (text, (channel, text)))

    publish("news", "one")
    publish("alerts.fire", "two")
    assert heard == ["one", ("alerts.fire", "two")], heard
    assert r.client_kill_filter(_type="pubsub") == 1
    publish("news", "three")
    publish("alerts.flood", "four")
    thread.stop()
    thread.join()
    subscriber.close()
    eventually(lambda: r.pubsub_numsub("news") == [("news", 0)])
    assert r.publish("news", "nobody") == 0


# Stands in the cache for what has been asked for and is not there yet.
ASKED = object()


class Cache:
    """What is read is kept until the server says that somebody changed it, which a connection of its own listens for."""

    def __init__(self):
        self.kept, self.asked = {}, 0
        options = dict(host="127.0.0.1", port=PORT, protocol=2, decode_responses=True)
        self.listener = redis.Redis(single_connection_client=True, **options)
        self.reader = redis.Redis(single_connection_client=True, **options)
        invalidations = self.listener.pubsub(ignore_subscribe_messages=True)
        invalidations.subscribe(**{"__redis__:invalidate": self.forget})
        listening = eventually(lambda: [c for c in self.reader.client_list() if c["sub"] == "1"])
        self.reader.execute_command("CLIENT", "TRACKING", "ON", "REDIRECT", listening[0]["id"])
        self.thread = invalidations.run_in_thread(sleep_time=0.01)

    def forget(self, message):
        """A list of keys, or nothing after a FLUSHALL."""
        for key in message["data"] or list(self.kept):
            self.kept.pop(key, None)

    def get(self, key):
        if self.kept.get(key, ASKED) is not ASKED:
            return self.kept[key]
        self.asked += 1
        self.kept[key] = ASKED
        value = self.reader.get(key)
        # Unless it was changed before the reply was here: then what the reply says may be old, and nobody would say so again.
        if key in self.kept:
            self.kept[key] = value
        return value

    def close(self):
        self.thread.stop()
        self.thread.join()


def client_side_caching(r):
    """What is read often is kept in the client, and dropped as soon as somebody changes it."""
    cache = Cache()
    for price in range(20):
        r.set("cache:price", price)
        eventually(lambda: cache.get("cache:price") == str(price))
        before = cache.asked
        assert [cache.get("cache:price") for _ in range(10)] == [str(price)] * 10
        assert cache.asked == before
    r.delete("cache:price")
    eventually(lambda: cache.get("cache:price") is None)
    r.set("cache:price", "back", px=30)
    eventually(lambda: cache.get("cache:price") == "back")
    # Time changes it, too.
    eventually(lambda: cache.get("cache:price") is None)
    r.set("cache:other", "kept")
    assert cache.get("cache:other") == "kept"
    r.flushall()
    eventually(lambda: cache.get("cache:other") is None)
    assert cache.reader.client_trackinginfo()[1] == ["on"]
    cache.close()


LIMITER = """
local used = redis.call('INCR', KEYS[1])
if used == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
if used > tonumber(ARGV[1]) then return {0, redis.call('PTTL', KEYS[1])} end
return {1, tonumber(ARGV[1]) - used}
"""


def rate_limiter(r):
    """A script decides and counts in one step, however many ask at once."""
    limiter = r.register_script(LIMITER)
    allowed = []

    def ask():
        own = connect()
        for _ in range(20):
            allowed.append(limiter(keys=["rate:user"], args=[30, 60_000], client=own)[0])

    run_at_once([ask] * 5)
    assert sum(allowed) == 30 and len(allowed) == 100
    refused, wait = limiter(keys=["rate:user"], args=[30, 60_000])
    assert refused == 0 and 0 < wait <= 60_000
    # The window ends, and a server that has forgotten the script is told it again.
    r.script_flush()
    assert limiter(keys=["rate:short"], args=[1, 30]) == [1, 0]
    eventually(lambda: limiter(keys=["rate:short"], args=[1, 30])[0] == 1)


def leaderboard(r):
    """Ranks, the best, and who stands around a player."""
    r.zadd("board", {f"player:{n:03}": n * 10 for n in range(200)})
    assert r.zincrby("board", 2000, "player:007") == 2070
    assert r.zrevrange("board", 0, 2, withscores=True)[0][0] == "player:007"
    assert r.zrevrank("board", "player:007") == 0
    rank = r.zrevrank("board", "player:150")
    around = r.zrange("board", rank - 1, rank + 1, desc=True)
    assert around == ["player:151", "player:150", "player:149"], around
    # Only a better score counts.
    assert r.zadd("board", {"player:100": 5}, gt=True) == 0
    assert r.zscore("board", "player:100") == 1000
    assert r.zcount("board", 1000, "+inf") == 101
    assert r.zremrangebyrank("board", 0, -101) == 100
    assert r.zcard("board") == 100


def sessions(r):
    """A session lives as long as it is used."""
    r.hset("session:1", mapping={"user": "42", "cart": "3"})
    r.expire("session:1", 1)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        assert r.hincrby("session:1", "clicks", 1) > 0
        r.expire("session:1", 1)
        time.sleep(0.05)
    assert r.hget("session:1", "user") == "42"
    r.pexpire("session:1", 30)
    eventually(lambda: not r.exists("session:1"))
    assert r.hgetall("session:1") == {}


def run_at_once(functions):
    failures = []

    def run(function):
        try:
            function()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


RECIPES = [pipelines, locks, streams, pub_sub, client_side_caching, rate_limiter, leaderboard, sessions]

if __name__ == "__main__":
    (recipe,) = [recipe for recipe in RECIPES if recipe.__name__ == sys.argv[3]]
    connection = connect()
    connection.flushall()
    recipe(connection)
    print(f"{recipe.__name__}: {recipe.__doc__.splitlines()[0]}")
