//! What COMMAND DOCS says of the group `connection`.

use super::{Doc, doc};

#[rustfmt::skip]
pub(super) const DOCS: &[Doc] = &[
    doc("auth", "1.0.0", "O(N)", "Authenticates the connection."),
    doc("client", "2.4.0", "", "The group of commands about connections."),
    doc("client|caching", "6.0.0", "O(1)", "Says whether the keys of the next command are to be tracked."),
    doc("client|getname", "2.6.9", "O(1)", "Returns the name of the connection."),
    doc("client|getredir", "6.0.0", "O(1)", "Returns the connection to which invalidations are sent."),
    doc("client|help", "5.0.0", "O(1)", "Lists the subcommands."),
    doc("client|id", "5.0.0", "O(1)", "Returns the id of the connection."),
    doc("client|info", "6.2.0", "O(1)", "Tells about the connection.").tips(&["nondeterministic_output"]),
    doc("client|kill", "2.4.0", "O(N)", "Ends connections."),
    doc("client|list", "2.4.0", "O(N)", "Tells about all connections.").tips(&["nondeterministic_output"]),
    doc("client|no-evict", "7.0.0", "O(1)", "Spares the connection where memory for clients runs out."),
    doc("client|pause", "2.9.50", "O(1)", "Lets the commands of all clients wait."),
    doc("client|reply", "3.2.0", "O(1)", "Says whether the connection is sent replies."),
    doc("client|setname", "2.6.9", "O(1)", "Names the connection."),
    doc("client|tracking", "6.0.0", "O(1)", "Turns the tracking of keys on or off."),
    doc("client|trackinginfo", "6.2.0", "O(1)", "Tells how the connection tracks keys."),
    doc("client|unblock", "5.0.0", "O(log N)", "Lets a client that waits in a blocking command go on."),
    doc("client|unpause", "6.2.0", "O(N)", "Lets the commands of all clients run again."),
    doc("echo", "1.0.0", "O(1)", "Returns its argument."),
    doc("hello", "6.0.0", "O(1)", "Chooses the protocol, and authenticates and names the connection where asked for."),
    doc("ping", "1.0.0", "O(1)", "Answers, so that one knows that the server does.").tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    doc("quit", "1.0.0", "O(1)", "Ends the connection."),
    doc("reset", "6.2.0", "O(1)", "Sets the connection back to how it began."),
    doc("select", "1.0.0", "O(1)", "Chooses the database."),
    doc("client|setinfo", "7.2.0", "O(1)", "Names the client's library."),
    doc("client|no-touch", "7.2.0", "O(1)", "Says whether commands of the connection mark keys as used."),
];
