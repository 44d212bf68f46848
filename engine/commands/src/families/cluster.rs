//! Commands of a cluster's nodes. There is no cluster, so each says that, as Redis does where its cluster mode is off.

use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::spec::{Arity, Categories, CommandSpec, Flags, Keys, at_least, exactly};

use super::help;

const INFORMING: Flags = Flags::NONE.stale();
const INSPECTING: Flags = Flags::ADMIN.stale();
const CHANGING: Flags = Flags::ADMIN.stale().no_async_loading();
const CONNECTION: Flags = Flags::NONE.fast();

const fn row(name: &'static str, arity: Arity, flags: Flags) -> CommandSpec {
    CommandSpec { name, arity, flags, keys: Keys::None, acl: Categories::NONE, handler: refuse }
}

const fn connection_row(name: &'static str, flags: Flags) -> CommandSpec {
    CommandSpec { acl: Categories::CONNECTION, ..row(name, exactly(1), flags) }
}

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    help::group_row("cluster"),
    row("cluster|addslots",              at_least(3), CHANGING),
    row("cluster|addslotsrange",         at_least(4), CHANGING),
    row("cluster|bumpepoch",             exactly(2),  CHANGING),
    row("cluster|count-failure-reports", exactly(3),  INSPECTING),
    row("cluster|countkeysinslot",       exactly(3),  INFORMING),
    row("cluster|delslots",              at_least(3), CHANGING),
    row("cluster|delslotsrange",         at_least(4), CHANGING),
    row("cluster|failover",              at_least(2), CHANGING),
    row("cluster|flushslots",            exactly(2),  CHANGING),
    row("cluster|forget",                exactly(3),  CHANGING),
    row("cluster|getkeysinslot",         exactly(4),  INFORMING),
    row("cluster|help",                  exactly(2),  Flags::NONE.loading().stale()),
    row("cluster|info",                  exactly(2),  INFORMING),
    row("cluster|keyslot",               exactly(3),  INFORMING),
    row("cluster|links",                 exactly(2),  INFORMING),
    row("cluster|meet",                  at_least(4), CHANGING),
    row("cluster|myid",                  exactly(2),  INFORMING),
    row("cluster|nodes",                 exactly(2),  INFORMING),
    row("cluster|replicas",              exactly(3),  INSPECTING),
    row("cluster|replicate",             exactly(3),  CHANGING),
    row("cluster|reset",                 at_least(2), INSPECTING.no_script()),
    row("cluster|saveconfig",            exactly(2),  CHANGING),
    row("cluster|set-config-epoch",      exactly(3),  CHANGING),
    row("cluster|setslot",               at_least(4), CHANGING),
    row("cluster|shards",                exactly(2),  INFORMING),
    row("cluster|slaves",                exactly(3),  INSPECTING),
    row("cluster|slots",                 exactly(2),  INFORMING),
    connection_row("asking",    CONNECTION),
    connection_row("readonly",  CONNECTION.loading().stale()),
    connection_row("readwrite", CONNECTION.loading().stale()),
];

fn refuse(_: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    Err(CommandError::other("ERR This instance has cluster support disabled"))
}

#[cfg(test)]
mod tests {
    use crate::testing::Engine;

    #[test]
    fn there_is_no_cluster() {
        Engine::new().check(
            "CLUSTER INFO -> -ERR This instance has cluster support disabled
             CLUSTER KEYSLOT a -> -ERR This instance has cluster support disabled
             CLUSTER HELP -> -ERR This instance has cluster support disabled
             READONLY -> -ERR This instance has cluster support disabled
             CLUSTER WHAT -> -ERR unknown subcommand 'WHAT'. Try CLUSTER HELP.
             CLUSTER KEYSLOT -> -ERR wrong number of arguments for 'cluster|keyslot' command",
        );
    }
}
