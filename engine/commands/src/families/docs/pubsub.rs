//! What COMMAND DOCS says of the group `pubsub`.

use super::{Doc, doc};

#[rustfmt::skip]
pub(super) const DOCS: &[Doc] = &[
    doc("psubscribe", "2.0.0", "O(N)", "Listens to the channels that match patterns."),
    doc("publish", "2.0.0", "O(N+M)", "Sends a message to a channel."),
    doc("pubsub", "2.8.0", "", "The group of commands that tell about channels."),
    doc("pubsub|channels", "2.8.0", "O(N)", "Lists the channels that somebody listens to."),
    doc("pubsub|help", "6.2.0", "O(1)", "Lists the subcommands."),
    doc("pubsub|numpat", "2.8.0", "O(1)", "Counts the patterns that clients listen to."),
    doc("pubsub|numsub", "2.8.0", "O(N)", "Counts the listeners of channels."),
    doc("pubsub|shardchannels", "7.0.0", "O(N)", "Lists the sharded channels that somebody listens to."),
    doc("pubsub|shardnumsub", "7.0.0", "O(N)", "Counts the listeners of sharded channels."),
    doc("punsubscribe", "2.0.0", "O(N+M)", "Stops listening to the channels that match patterns."),
    doc("spublish", "7.0.0", "O(N)", "Sends a message to a sharded channel."),
    doc("ssubscribe", "7.0.0", "O(N)", "Listens to sharded channels."),
    doc("subscribe", "2.0.0", "O(N)", "Listens to channels."),
    doc("sunsubscribe", "7.0.0", "O(N)", "Stops listening to sharded channels."),
    doc("unsubscribe", "2.0.0", "O(N)", "Stops listening to channels."),
];
