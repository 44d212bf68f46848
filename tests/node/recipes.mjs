// Recipes people copy, run through Node's redis client: node recipes.mjs PORT PROTOCOL RECIPE, with the client in NODE_PATH.
// Ends with a trace and code 1 where one does not hold.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const { createClient, defineScript } = createRequire(import.meta.url)("redis");
const [port, protocol, name] = [Number(process.argv[2]), Number(process.argv[3]), process.argv[4]];
const PATIENCE_MS = 20_000;
const open = [];

async function connect(options = {}) {
    const client = createClient({ socket: { host: "127.0.0.1", port }, RESP: protocol, ...options });
    // A connection that is cut is made again; what the client says of it is no fault.
    client.on("error", () => {});
    await client.connect();
    open.push(client);
    return client;
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function eventually(condition) {
    const end = Date.now() + PATIENCE_MS;
    while (Date.now() < end) {
        const found = await condition();
        if (found) return found;
        await sleep(5);
    }
    assert.fail("it never held");
}

const recipes = {
    async pipelines(client) {
        const replies = await Promise.all(Array.from({ length: 1000 }, (_, n) => client.rPush("pipeline:list", `${n}`)));
        assert.deepEqual(replies, Array.from({ length: 1000 }, (_, n) => n + 1));
        assert.deepEqual(await client.multi().set("pipeline:a", "1").incr("pipeline:a").get("pipeline:a").exec(), ["OK", 2, "2"]);

        // Who was overtaken begins again.
        await client.set("pipeline:stock", "40");
        const buy = async () => {
            const own = await connect();
            for (let n = 0; n < 10; ) {
                await own.watch("pipeline:stock");
                const stock = Number(await own.get("pipeline:stock"));
                try {
                    await own.multi().set("pipeline:stock", `${stock - 1}`).exec();
                    n += 1;
                } catch (error) {
                    assert.equal(error.constructor.name, "WatchError");
                }
            }
        };
        await Promise.all([buy(), buy(), buy(), buy()]);
        assert.equal(await client.get("pipeline:stock"), "0");
    },

    async locks(client) {
        const release =
            "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";
        const lock = (token) => client.set("lock:name", token, { condition: "NX", expiration: { type: "PX", value: 10_000 } });
        await client.set("lock:counter", "0");
        const count = async (who) => {
            for (let n = 0; n < 20; n++) {
                const token = `${who}:${n}`;
                await eventually(() => lock(token));
                await client.set("lock:counter", `${Number(await client.get("lock:counter")) + 1}`);
                assert.equal(await client.eval(release, { keys: ["lock:name"], arguments: [token] }), 1);
            }
        };
        await Promise.all(["a", "b", "c"].map(count));
        assert.equal(await client.get("lock:counter"), "60");
        assert.equal(await lock("mine"), "OK");
        assert.equal(await client.eval(release, { keys: ["lock:name"], arguments: ["another's"] }), 0);
        assert.equal(await client.get("lock:name"), "mine");
    },

    // The client reads streams in version 2 only.
    async streams() {
        const client = await connect({ RESP: 2 });
        await client.xGroupCreate("stream:jobs", "workers", "0", { MKSTREAM: true });
        const jobs = new Set();
        for (let n = 0; n < 20; n++) jobs.add(await client.xAdd("stream:jobs", "*", { job: `${n}` }));
        const read = async (who, COUNT) => {
            const found = await client.xReadGroup("workers", who, { key: "stream:jobs", id: ">" }, { COUNT });
            return found[0].messages;
        };
        assert.equal((await read("dies", 8)).length, 8);
        const done = new Set();
        for (const { id } of await read("lives", 100)) {
            done.add(id);
            await client.xAck("stream:jobs", "workers", id);
        }
        await sleep(60);
        for (let next = "0-0"; ; ) {
            const claimed = await client.xAutoClaim("stream:jobs", "workers", "lives", 50, next, { COUNT: 3 });
            for (const { id } of claimed.messages) {
                assert.ok(!done.has(id));
                done.add(id);
                await client.xAck("stream:jobs", "workers", id);
            }
            next = claimed.nextId;
            if (next === "0-0") break;
        }
        assert.deepEqual(done, jobs);
        assert.equal((await client.xPending("stream:jobs", "workers")).pending, 0);
    },

    async pub_sub(client) {
        const heard = [];
        const subscriber = await connect();
        await subscriber.subscribe("news", (message) => heard.push(message));
        await subscriber.pSubscribe("alerts.*", (message, channel) => heard.push(`${channel}: ${message}`));
        const publish = async (channel, message, expected) => {
            await eventually(() => client.publish(channel, message));
            await eventually(() => heard.at(-1) === expected);
        };
        await publish("news", "one", "one");
        await publish("alerts.fire", "two", "alerts.fire: two");
        assert.equal(await client.sendCommand(["CLIENT", "KILL", "TYPE", "pubsub"]), 1);
        await publish("news", "three", "three");
        await publish("alerts.flood", "four", "alerts.flood: four");
        await subscriber.unsubscribe("news");
        assert.equal(await client.publish("news", "nobody"), 0);
    },

    // The client keeps what it read, and version 3 of the protocol pushes what has changed into the same connection.
    async client_side_caching(client) {
        const cached = await connect({ RESP: 3, clientSideCache: { ttl: 0, maxEntries: 100, evictPolicy: "LRU" } });
        for (let price = 0; price < 20; price++) {
            await client.set("cache:price", `${price}`);
            await eventually(async () => (await cached.get("cache:price")) === `${price}`);
            const asked = async () => /cmdstat_get:calls=(\d+)/.exec(await client.info("commandstats"))[1];
            const before = await asked();
            for (let n = 0; n < 10; n++) assert.equal(await cached.get("cache:price"), `${price}`);
            assert.equal(await asked(), before);
        }
        await client.flushAll();
        await eventually(async () => (await cached.get("cache:price")) === null);
    },

    async rate_limiter() {
        const limit = defineScript({
            NUMBER_OF_KEYS: 1,
            SCRIPT:
                "local used = redis.call('INCR', KEYS[1]) " +
                "if used == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end " +
                "return used <= tonumber(ARGV[1])",
            FIRST_KEY_INDEX: 0,
            parseCommand(parser, key, most, ms) {
                parser.pushKey(key);
                parser.push(`${most}`, `${ms}`);
            },
            // True is 1, and false is null.
            transformReply: (reply) => reply === 1,
        });
        const client = await connect({ scripts: { limit } });
        const asked = await Promise.all(Array.from({ length: 100 }, () => client.limit("rate:user", 30, 60_000)));
        assert.equal(asked.filter(Boolean).length, 30);
        await client.sendCommand(["SCRIPT", "FLUSH"]);
        assert.equal(await client.limit("rate:user", 30, 60_000), false);
        assert.equal(await client.limit("rate:short", 1, 30), true);
        await eventually(() => client.limit("rate:short", 1, 30));
    },

    async leaderboard(client) {
        const players = Array.from({ length: 200 }, (_, n) => ({ score: n * 10, value: `player:${n}` }));
        assert.equal(await client.zAdd("board", players), 200);
        assert.equal(await client.zIncrBy("board", 2000, "player:7"), 2070);
        assert.deepEqual(await client.zRangeWithScores("board", 0, 0, { REV: true }), [{ value: "player:7", score: 2070 }]);
        assert.equal(await client.zRevRank("board", "player:7"), 0);
        assert.deepEqual(await client.zRange("board", 100, 120, { BY: "SCORE" }), ["player:10", "player:11", "player:12"]);
        assert.equal(await client.zScore("board", "nobody"), null);
    },

    async sessions(client) {
        await client.hSet("session:1", { user: "42", cart: "3" });
        await client.expire("session:1", 1);
        for (const end = Date.now() + 1500; Date.now() < end; await sleep(50)) {
            assert.deepEqual({ ...(await client.hGetAll("session:1")) }, { user: "42", cart: "3" });
            await client.expire("session:1", 1);
        }
        await client.pExpire("session:1", 30);
        await eventually(async () => (await client.exists("session:1")) === 0);
    },
};

const client = await connect();
await client.flushAll();
await recipes[name](client);
open.forEach((one) => one.destroy());
console.log(`${name}: it holds`);
