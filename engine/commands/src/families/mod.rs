//! The families of commands: a file each, its rows on top.

mod acl;
mod bitmap;
mod cairn;
mod client;
mod cluster;
mod command;
mod compare;
pub(crate) mod connection;
mod debug;
pub(crate) mod docs;
mod dump;
mod field_expiry;
mod function;
mod generic;
mod geo;
mod hash;
mod help;
mod hyperloglog;
mod latency;
mod lcs;
mod list;
mod memory;
pub(crate) mod migrate;
mod modules;
mod pop_many;
mod protocol;
pub(crate) mod pubsub;
mod replication;
mod script;
mod server;
mod set;
mod slowlog;
mod sort;
mod stream;
mod string;
mod transactions;
mod wait;
mod zset;

use crate::spec::CommandSpec;

/// The rows of every family.
pub(crate) const TABLES: &[&[CommandSpec]] = &[
    string::COMMANDS,
    compare::COMMANDS,
    lcs::COMMANDS,
    bitmap::COMMANDS,
    hyperloglog::COMMANDS,
    generic::COMMANDS,
    dump::COMMANDS,
    migrate::COMMANDS,
    sort::COMMANDS,
    memory::COMMANDS,
    list::COMMANDS,
    set::COMMANDS,
    hash::COMMANDS,
    field_expiry::COMMANDS,
    zset::COMMANDS,
    geo::COMMANDS,
    stream::COMMANDS,
    transactions::COMMANDS,
    script::COMMANDS,
    function::COMMANDS,
    connection::COMMANDS,
    client::COMMANDS,
    pubsub::COMMANDS,
    server::COMMANDS,
    slowlog::COMMANDS,
    latency::COMMANDS,
    command::COMMANDS,
    wait::COMMANDS,
    acl::COMMANDS,
    replication::COMMANDS,
    cluster::COMMANDS,
    modules::COMMANDS,
    cairn::COMMANDS,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::keys::{Begin, Find, Keys};

    /// What cannot be said by a specification would be neither locked nor checked.
    #[test]
    fn keys_at_unknown_places_have_something_that_finds_them() {
        for row in super::TABLES.iter().copied().flatten() {
            let mut unknown = false;
            row.keys.each_spec(|spec| unknown |= spec.begin == Begin::Unknown || spec.find == Find::Unknown);
            let is_found = matches!(row.keys, Keys::Specs { finder: Some(_), .. });
            assert!(is_found || !unknown, "{}", row.name);
        }
    }

    #[test]
    fn each_name_stands_once_and_in_lower_case() {
        let mut seen = BTreeSet::new();
        for spec in super::TABLES.iter().copied().flatten() {
            assert!(seen.insert(spec.name), "{} stands twice", spec.name);
            assert_eq!(spec.name, spec.name.to_lowercase());
        }
    }
}
