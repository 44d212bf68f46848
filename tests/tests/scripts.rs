//! Scripts beside other clients: those that run for long, those that are killed, those that a crash meets.

use cairn_tests::resp::{Client, Value};
use cairn_tests::server::{Server, Setup};
use std::thread;
use std::time::{Duration, Instant};

const BUSY: &str = "BUSY Redis is busy running a script";

/// With one thread that serves clients, and with two.
fn servers(mut test: impl FnMut(&Server)) {
    for threads in ["1", "2"] {
        let home = tempfile::tempdir().expect("a temporary directory");
        let setup = Setup::cairn(home.path()).journal("always").with("server-threads", threads);
        let server = setup.with("busy-reply-threshold", "100").start();
        test(&server);
    }
}

/// Sends a request whose reply is read later.
fn begin(client: &mut Client, args: &[&str]) {
    let mut request = Vec::new();
    cairn_tests::resp::encode(&mut request, args);
    client.send(&request).expect("a request can be sent");
}

/// The text of a string, of an error, or of anything else.
fn text(value: &Value) -> String {
    match value {
        Value::Error(text) | Value::Simple(text) | Value::Bulk(text) => {
            String::from_utf8_lossy(text).into_owned()
        }
        other => format!("{other:?}"),
    }
}

/// Waits until others hear that a script is running.
fn await_busy(client: &mut Client) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !text(&client.ask("PING")).starts_with(BUSY) {
        assert!(Instant::now() < deadline, "nobody hears that a script is running");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_script_that_does_not_end_is_killed_and_meanwhile_others_hear_of_it() {
    servers(|server| {
        let (mut running, mut other) = (server.connect(), server.connect());
        other.ask("SET x 1");
        for script in [
            "while true do end",
            "while true do pcall(function() while true do redis.call('PING') end end) end",
            "local co = coroutine.wrap(function() while true do pcall(function() while true do end end) end end) co()",
        ] {
            begin(&mut running, &["EVAL", script, "1", "x"]);
            await_busy(&mut other);
            assert!(text(&other.ask("GET x")).starts_with(BUSY));
            assert!(text(&other.ask("FUNCTION KILL")).starts_with(BUSY));
            assert_eq!(text(&other.ask("SCRIPT KILL")), "OK");
            let reply = text(&running.reply().expect("a killed script is answered"));
            assert!(reply.starts_with("ERR Script killed by user with SCRIPT KILL..."), "{reply}");
            assert_eq!(text(&other.ask("GET x")), "1");
        }
        assert_eq!(text(&other.ask("SCRIPT KILL")), "NOTBUSY No scripts in execution right now.");
    });
}

#[test]
fn a_function_that_does_not_end_is_shown_and_killed() {
    servers(|server| {
        let (mut running, mut other) = (server.connect(), server.connect());
        let library =
            "#!lua name=forever\nredis.register_function('forever', function() while true do end end)";
        assert_eq!(text(&other.args(&["FUNCTION", "LOAD", library])), "forever");
        begin(&mut running, &["FCALL", "forever", "0"]);
        await_busy(&mut other);
        let shown = format!("{:?}", other.ask("FUNCTION STATS"));
        assert!(shown.contains("duration_ms"), "{shown}");
        assert!(text(&other.ask("SCRIPT KILL")).starts_with(BUSY));
        assert_eq!(text(&other.ask("FUNCTION KILL")), "OK");
        let reply = text(&running.reply().expect("a killed function is answered"));
        assert!(reply.starts_with("ERR Script killed by user"), "{reply}");
    });
}

#[test]
fn a_script_that_has_written_is_not_killed_and_ends_with_the_server_leaving_nothing() {
    for threads in ["1", "2"] {
        let home = tempfile::tempdir().expect("a temporary directory");
        let setup = Setup::cairn(home.path()).journal("always").with("server-threads", threads);
        let setup = setup.with("busy-reply-threshold", "100");
        let server = setup.start();
        let (mut running, mut other) = (server.connect(), server.connect());
        other.ask("SET before 1");
        let script = "redis.call('SET', KEYS[1], 'half') while true do end";
        begin(&mut running, &["EVAL", script, "1", "x"]);
        await_busy(&mut other);
        assert!(text(&other.ask("SCRIPT KILL")).starts_with("UNKILLABLE"));
        assert_eq!(text(&other.ask("MULTI")), "OK");
        assert!(text(&other.ask("GET x")).starts_with(BUSY));
        assert!(text(&other.ask("EXEC")).starts_with("EXECABORT Transaction discarded because of: BUSY"));
        assert!(text(&other.ask("SHUTDOWN")).starts_with(BUSY));
        begin(&mut other, &["SHUTDOWN", "NOSAVE"]);
        assert_eq!(server.wait(), 0);
        let server = setup.start();
        let mut client = server.connect();
        assert_eq!(text(&client.ask("GET before")), "1");
        assert_eq!(client.ask("GET x"), Value::Null);
    }
}

#[test]
fn until_the_limit_others_wait_for_the_keys_of_a_script_and_for_nothing_else() {
    servers(|server| {
        let (mut running, mut other, mut waiting) = (server.connect(), server.connect(), server.connect());
        other.ask("CONFIG SET busy-reply-threshold 60000");
        let script = "local n = redis.call('INCR', KEYS[1]) for i = 1, 60000000 do n = n + 1 end return redis.call('INCR', KEYS[1])";
        begin(&mut running, &["EVAL", script, "1", "held"]);
        thread::sleep(Duration::from_millis(100));
        begin(&mut waiting, &["GET", "held"]);
        let started = Instant::now();
        for number in 0..50 {
            assert_eq!(text(&other.ask(&format!("SET free{number} 1"))), "OK");
        }
        let unhindered = started.elapsed();
        assert_eq!(text(&waiting.reply().expect("who waits is answered")), "2");
        assert_eq!(running.reply().expect("the script is answered"), Value::Integer(2));
        let hindered = started.elapsed();
        assert!(unhindered < hindered, "other keys waited {unhindered:?}, the script took {hindered:?}");
    });
}

#[test]
fn scripts_that_declare_nothing_wait_for_each_other_and_lose_nothing() {
    const CLIENTS: usize = 4;
    const CALLS: usize = 200;
    servers(|server| {
        let script =
            "redis.call('INCR', ARGV[1]) redis.call('INCR', ARGV[2]) return redis.call('DBSIZE') > 0";
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let mut connection = server.connect();
                scope.spawn(move || {
                    let keys = if client % 2 == 0 { ["a", "b"] } else { ["b", "a"] };
                    for _ in 0..CALLS {
                        let reply = connection.args(&["EVAL", script, "0", keys[0], keys[1]]);
                        assert_eq!(reply, Value::Integer(1));
                    }
                });
            }
        });
        let expected = (CLIENTS * CALLS).to_string();
        let mut client = server.connect();
        assert_eq!(text(&client.ask("GET a")), expected);
        assert_eq!(text(&client.ask("GET b")), expected);
    });
}

#[test]
fn after_a_crash_a_scripts_writes_are_all_there_or_none_and_so_are_libraries() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let setup = Setup::cairn(home.path()).journal("always").with("server-threads", "2");
    let server = setup.start();
    let library = "#!lua name=pair\nredis.register_function('pair', function(keys) redis.call('INCR', keys[1]) redis.call('RPUSH', 'log', redis.call('INCR', keys[2])) return redis.call('GET', keys[1]) end)";
    let mut client = server.connect();
    assert_eq!(text(&client.args(&["FUNCTION", "LOAD", library])), "pair");
    server.bgsave();
    let later = "#!lua name=later\nredis.register_function('later', function() return 'here' end)";
    assert_eq!(text(&client.args(&["FUNCTION", "LOAD", later])), "later");
    let acknowledged = thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let mut acknowledged = 0;
            while let Ok(value) = client.call(&["FCALL", "pair", "2", "first", "second"]) {
                acknowledged = text(&value).parse::<i64>().expect("a counter is a number");
            }
            acknowledged
        });
        thread::sleep(Duration::from_millis(400));
        server.kill();
        writer.join().expect("the writer ends")
    });
    let server = setup.start();
    let mut client = server.connect();
    let first: i64 = text(&client.ask("GET first")).parse().expect("a counter is a number");
    assert!(acknowledged > 0 && first >= acknowledged, "{first} is there of {acknowledged}");
    assert_eq!(text(&client.ask("GET second")), first.to_string());
    assert_eq!(client.ask("LLEN log"), Value::Integer(first));
    assert_eq!(text(&client.ask("FCALL later 0")), "here");
    assert_eq!(text(&client.ask("FCALL pair 2 first second")), (first + 1).to_string());
}
