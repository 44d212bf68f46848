"""The samples of a cache guide, run through Python's redis client: sample.py PORT PROTOCOL.

Prints the name of each pattern that held; ends with a traceback and code 1 at the first that does not.
"""

import sys
import threading
import time

import redis

PORT, PROTOCOL = int(sys.argv[1]), int(sys.argv[2])
CLIENTS, STEPS = 20, 100


def connect():
    return redis.Redis(host="127.0.0.1", port=PORT, protocol=PROTOCOL, decode_responses=True)


def lazy_loading(r):
    """The cache is asked first; a miss loads from the database and keeps the answer for a while."""
    database = {"product:1": "Chair", "product:2": "Table"}
    loads = []

    def load(key):
        found = r.get(key)
        if found is None:
            loads.append(key)
            found = database[key]
            r.setex(key, 300, found)
        return found

    assert [load("product:1") for _ in range(3)] == ["Chair"] * 3
    assert load("product:2") == "Table"
    assert loads == ["product:1", "product:2"], loads
    assert 0 < r.ttl("product:1") <= 300


def write_through(r):
    """Each write goes to the database and to the cache; readers never see the old value."""
    database = {}
    for price in range(10):
        database["price:1"] = str(price)
        pipe = r.pipeline(transaction=True)
        pipe.set("price:1", price)
        pipe.hset("price:1:meta", mapping={"currency": "EUR", "version": price})
        assert pipe.execute()[0] is True
        assert r.get("price:1") == database["price:1"]
    assert r.hgetall("price:1:meta") == {"currency": "EUR", "version": "9"}


def session_store(r):
    """A session lives as long as it is used, and is gone after that."""
    r.hset("session:a", mapping={"user": "42", "cart": "3 items"})
    r.expire("session:a", 1800)
    assert r.hget("session:a", "user") == "42"
    assert 1790 < r.ttl("session:a") <= 1800
    r.hset("session:b", "user", "43")
    assert r.pexpire("session:b", 50)
    end = time.monotonic() + 10
    while r.exists("session:b"):
        assert time.monotonic() < end, "the session does not expire"
        time.sleep(0.005)
    assert r.hgetall("session:b") == {} and r.ttl("session:b") == -2
    assert r.set("session:lock", "me", nx=True, ex=30) is True
    assert r.set("session:lock", "you", nx=True, ex=30) is None
    assert r.getex("session:lock", persist=True) == "me" and r.ttl("session:lock") == -1


def leaderboard(r):
    """Scores move players; the best come first."""
    r.zadd("board", {"ada": 120, "bob": 95.5, "cyd": 130})
    r.zincrby("board", 20, "ada")
    top = [(name, float(score)) for name, score in r.zrevrange("board", 0, 1, withscores=True)]
    assert top == [("ada", 140.0), ("cyd", 130.0)], top
    assert r.zrevrank("board", "bob") == 2 and r.zscore("board", "bob") == 95.5
    assert r.zrangebyscore("board", 100, "+inf") == ["cyd", "ada"]


def distributed_counter(r):
    """Twenty clients count at once; none of their steps is lost, neither by INCR nor by WATCH and MULTI."""
    failures = []

    def count():
        try:
            own = connect()
            for _ in range(STEPS):
                own.incr("sample:counter")
            for _ in range(3):
                while True:
                    with own.pipeline() as pipe:
                        try:
                            pipe.watch("sample:careful")
                            value = int(pipe.get("sample:careful") or 0)
                            pipe.multi()
                            pipe.set("sample:careful", value + 1)
                            pipe.execute()
                            break
                        except redis.WatchError:
                            continue
        except Exception as error:  # told by the thread that waits
            failures.append(error)

    threads = [threading.Thread(target=count) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert r.get("sample:counter") == str(CLIENTS * STEPS), r.get("sample:counter")
    assert r.get("sample:careful") == str(CLIENTS * 3), r.get("sample:careful")


def other_clients_habits(r):
    """What the client library itself relies on: types, scans, blocking-free lists, errors as exceptions."""
    assert r.ping() and r.echo("hello") == "hello"
    r.rpush("queue", "a", "b", "c")
    assert r.lpop("queue") == "a" and r.lrange("queue", 0, -1) == ["b", "c"]
    r.sadd("tags", "x", "y")
    assert r.smembers("tags") == {"x", "y"}
    assert set(r.scan_iter(match="session:*", count=5)) == {"session:a", "session:lock"}
    try:
        r.incr("board")
        raise AssertionError("a wrong type must be an error")
    except redis.ResponseError as error:
        assert "WRONGTYPE" in str(error) or "wrong kind" in str(error), error
    assert r.info()["redis_version"] and r.config_get("appendonly") and r.dbsize() > 0


def main():
    r = connect()
    r.flushall()
    for sample in (lazy_loading, write_through, session_store, leaderboard, distributed_counter, other_clients_habits):
        sample(r)
        print(sample.__name__.replace("write_through", "write-through").replace("_", " "))


main()
