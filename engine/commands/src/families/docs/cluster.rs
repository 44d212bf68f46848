//! What COMMAND DOCS says of the group `cluster`.

use super::{Doc, doc};

#[rustfmt::skip]
pub(super) const DOCS: &[Doc] = &[
    doc("asking", "3.0.0", "O(1)", "Lets the next command reach a slot that is on its way to another node."),
    doc("cluster", "3.0.0", "", "The group of commands about the nodes of a cluster."),
    doc("cluster|addslots", "3.0.0", "O(N)", "Assigns slots to the node."),
    doc("cluster|addslotsrange", "7.0.0", "O(N)", "Assigns ranges of slots to the node."),
    doc("cluster|bumpepoch", "3.0.0", "O(1)", "Moves the epoch of the cluster on.").tips(&["nondeterministic_output"]),
    doc("cluster|count-failure-reports", "3.0.0", "O(N)", "Counts the nodes that report another one as failing.").tips(&["nondeterministic_output"]),
    doc("cluster|countkeysinslot", "3.0.0", "O(1)", "Counts the keys of a slot."),
    doc("cluster|delslots", "3.0.0", "O(N)", "Takes slots from the node."),
    doc("cluster|delslotsrange", "7.0.0", "O(N)", "Takes ranges of slots from the node."),
    doc("cluster|failover", "3.0.0", "O(1)", "Makes a replica take the place of its master."),
    doc("cluster|flushslots", "3.0.0", "O(1)", "Takes all slots from the node."),
    doc("cluster|forget", "3.0.0", "O(1)", "Removes a node from those that are known."),
    doc("cluster|getkeysinslot", "3.0.0", "O(log(N))", "Returns keys of a slot.").tips(&["nondeterministic_output"]),
    doc("cluster|help", "5.0.0", "O(1)", "Lists the subcommands."),
    doc("cluster|info", "3.0.0", "O(1)", "Tells about the state of the cluster.").tips(&["nondeterministic_output"]),
    doc("cluster|keyslot", "3.0.0", "O(N)", "Returns the slot of a key."),
    doc("cluster|links", "7.0.0", "O(N)", "Lists the connections between nodes.").tips(&["nondeterministic_output"]),
    doc("cluster|meet", "3.0.0", "O(1)", "Makes the node get to know another one."),
    doc("cluster|myid", "3.0.0", "O(1)", "Returns the node's id."),
    doc("cluster|nodes", "3.0.0", "O(N)", "Returns what the node knows of the others.").tips(&["nondeterministic_output"]),
    doc("cluster|replicas", "5.0.0", "O(1)", "Lists the replicas of a master.").tips(&["nondeterministic_output"]),
    doc("cluster|replicate", "3.0.0", "O(1)", "Makes the node the replica of another one."),
    doc("cluster|reset", "3.0.0", "O(N)", "Makes the node forget its cluster."),
    doc("cluster|saveconfig", "3.0.0", "O(1)", "Writes what the node knows of the cluster to its disk."),
    doc("cluster|set-config-epoch", "3.0.0", "O(1)", "Sets the epoch of a new node."),
    doc("cluster|setslot", "3.0.0", "O(1)", "Says which node a slot belongs to."),
    doc("cluster|shards", "7.0.0", "O(N)", "Lists slots with the nodes that serve them.").tips(&["nondeterministic_output"]),
    doc("cluster|slaves", "3.0.0", "O(1)", "Lists the replicas of a master.").tips(&["nondeterministic_output"]).deprecated("5.0.0", "CLUSTER REPLICAS"),
    doc("cluster|slots", "3.0.0", "O(N)", "Lists slots with the nodes that serve them.").tips(&["nondeterministic_output"]).deprecated("7.0.0", "CLUSTER SHARDS"),
    doc("readonly", "3.0.0", "O(1)", "Lets the connection read from a replica."),
    doc("readwrite", "3.0.0", "O(1)", "Lets the connection read from masters only, as at first."),
];
