//! With one thread, requests of several connections run in the order in which they came.

use cairn_tests::resp::{Client, encode};
use cairn_tests::server::Setup;
use cairn_tests::signal::Signal;

/// tokio runs first what was woken last, so of connections that became ready together the last one was served first: a
/// client that pushed by one connection and looked by another, without waiting between the two, found nothing.
#[test]
fn requests_that_arrive_together_run_in_the_order_they_came() {
    const CONNECTIONS: usize = 20;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let setup = Setup::cairn(&dir.path().join("data")).journal("everysec").with("server-threads", "1");
    let server = setup.start();
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.ask("PING").text(), "PONG"));
    let wanted: Vec<String> = (0..CONNECTIONS).map(|number| number.to_string()).collect();
    for _ in 0..10 {
        // So that it finds all of them when it looks.
        server.signal(Signal::Stop);
        for (client, number) in clients.iter_mut().zip(&wanted) {
            let mut request = Vec::new();
            encode(&mut request, &["RPUSH", "order", number]);
            client.send(&request).expect("the kernel takes it");
        }
        server.signal(Signal::Continue);
        clients.iter_mut().for_each(|client| assert!(client.reply().expect("a reply").integer() > 0));
        let found: Vec<String> =
            clients[0].ask("LRANGE order 0 -1").items().iter().map(|item| item.text()).collect();
        assert_eq!(found, wanted);
        clients[0].ask("DEL order");
    }
}
