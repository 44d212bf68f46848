//! What the server notes of the commands it runs: the slow log, LATENCY, and the counts of INFO.

use cairn_tests::resp::{Client, Value};
use cairn_tests::server::Setup;

fn strings(value: &Value) -> Vec<String> {
    let Value::Array(items) = value else { panic!("an array was expected, not {value:?}") };
    items.iter().map(|item| item.text()).collect()
}

fn items(value: Value) -> Vec<Value> {
    let Value::Array(items) = value else { panic!("an array was expected, not {value:?}") };
    items
}

/// The counts of one command, as INFO commandstats shows them.
fn usage(client: &mut Client, command: &str) -> Option<String> {
    let text = client.ask("INFO commandstats").text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:")));
    line.map(str::to_owned)
}

#[test]
fn slow_requests_are_logged_without_their_secrets() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let server = Setup::cairn(home.path()).with("enable-debug-command", "yes").start();
    let mut client = server.connect();
    client.ask("CLIENT SETNAME tester");
    assert_eq!(client.ask("DEBUG SLEEP 0.02"), Value::ok());
    // Sent in one piece with others, so that it is timed by those behind it.
    client
        .pipeline(&[
            vec![b"SET".to_vec(), b"a".to_vec(), b"b".to_vec()],
            vec![b"DEBUG".to_vec(), b"SLEEP".to_vec(), b"0.02".to_vec()],
            vec![b"GET".to_vec(), b"a".to_vec()],
        ])
        .expect("all are taken");
    let log = items(client.ask("SLOWLOG GET -1"));
    assert_eq!(log.len(), 2, "the quick ones are not in it: {log:?}");
    let newest = items(log[0].clone());
    assert_eq!(newest[0].integer(), 1, "ids count up");
    assert!(newest[2].integer() >= 20_000, "{newest:?}");
    assert_eq!(strings(&newest[3]), ["DEBUG", "SLEEP", "0.02"]);
    assert_eq!(newest[5].text(), "tester");
    assert!(newest[4].text().starts_with("127.0.0.1:"), "{newest:?}");

    assert_eq!(client.ask("SLOWLOG RESET"), Value::ok());
    assert_eq!(client.ask("CONFIG SET slowlog-log-slower-than 0 slowlog-max-len 3"), Value::ok());
    client.ask("CONFIG SET requirepass secret");
    client.ask("AUTH secret");
    let log = client.ask("SLOWLOG GET");
    assert!(!format!("{log:?}").contains("secret"), "{log:?}");
    (0..10).for_each(|_| drop(client.ask("PING")));
    assert_eq!(client.ask("SLOWLOG LEN").integer(), 3);
    assert_eq!(client.ask("CONFIG SET slowlog-log-slower-than -1"), Value::ok());
    assert_eq!(client.ask("SLOWLOG RESET"), Value::ok());
    client.ask("DEBUG SLEEP 0.02");
    assert_eq!(client.ask("SLOWLOG LEN").integer(), 0);
    assert!(matches!(client.ask("SLOWLOG GET -2"), Value::Error(_)));
}

#[test]
fn commands_are_counted_and_timed() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let server = Setup::cairn(home.path()).with("enable-debug-command", "yes").start();
    let mut client = server.connect();
    let set = || vec![b"SET".to_vec(), b"a".to_vec(), b"b".to_vec()];
    client.pipeline(&(0..40).map(|_| set()).collect::<Vec<_>>()).expect("all are taken");
    assert!(matches!(client.ask("LPUSH a 1"), Value::Error(_)), "the wrong type");
    assert!(matches!(client.ask("LPUSH a"), Value::Error(_)), "the wrong number of arguments");
    let sets = usage(&mut client, "set").expect("SET was counted");
    assert!(sets.starts_with("calls=40,") && sets.ends_with("rejected_calls=0,failed_calls=0"), "{sets}");
    let pushes = usage(&mut client, "lpush").expect("LPUSH was counted");
    assert!(
        pushes.starts_with("calls=1,") && pushes.ends_with("rejected_calls=1,failed_calls=1"),
        "{pushes}"
    );
    client.ask("CONFIG GET port");
    assert!(usage(&mut client, "config|get").is_some(), "subcommands are counted apart");
    let errors = client.ask("INFO errorstats").text();
    assert!(
        errors.contains("errorstat_ERR:count=1") && errors.contains("errorstat_WRONGTYPE:count=1"),
        "{errors}"
    );

    let histogram = items(client.ask("LATENCY HISTOGRAM SET"));
    assert_eq!((histogram[0].text().as_str(), items(histogram[1].clone())[1].integer()), ("set", 40));
    let percentiles = client.ask("INFO latencystats").text();
    assert!(percentiles.contains("latency_percentiles_usec_set:p50="), "{percentiles}");
    assert_eq!(client.ask("CONFIG RESETSTAT"), Value::ok());
    assert_eq!(usage(&mut client, "set"), None);
    assert_eq!(client.ask("CONFIG SET latency-tracking no"), Value::ok());
    client.ask("SET a b");
    assert!(usage(&mut client, "set").is_some());
    assert!(items(client.ask("LATENCY HISTOGRAM SET")).is_empty(), "no durations are noted");
}

#[test]
fn events_over_the_threshold_have_a_history() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let server = Setup::cairn(home.path()).with("enable-debug-command", "yes").start();
    let mut client = server.connect();
    client.ask("DEBUG SLEEP 0.02");
    assert!(items(client.ask("LATENCY LATEST")).is_empty(), "the monitor is off");
    assert!(client.ask("LATENCY DOCTOR").text().contains("is off"));
    assert_eq!(client.ask("CONFIG SET latency-monitor-threshold 15"), Value::ok());
    client.ask("DEBUG SLEEP 0.02");
    client.ask("PING");
    let latest = items(client.ask("LATENCY LATEST"));
    let event = items(latest[0].clone());
    assert_eq!((latest.len(), event[0].text().as_str()), (1, "command"));
    assert!(event[2].integer() >= 20 && event[3].integer() >= 20, "{event:?}");
    assert_eq!(items(client.ask("LATENCY HISTORY command")).len(), 1);
    assert!(client.ask("LATENCY GRAPH command").text().starts_with("command - high"));
    assert!(matches!(client.ask("LATENCY GRAPH nothing"), Value::Error(_)));
    assert!(client.ask("LATENCY DOCTOR").text().contains("SLOWLOG GET"));
    assert_eq!(client.ask("LATENCY RESET").integer(), 1);
    assert!(items(client.ask("LATENCY LATEST")).is_empty());
}
