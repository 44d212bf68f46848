//! What COMMAND DOCS says: a line for each command and subcommand, a file for each group, and with it the hints for
//! clients that COMMAND INFO shows.

mod arguments;
mod bitmap;
mod cairn;
mod cluster;
mod connection;
mod generic;
mod geo;
mod hash;
mod hyperloglog;
mod list;
mod pubsub;
mod scripting;
mod server;
mod set;
mod sorted_set;
mod stream;
mod string;
pub(crate) mod syntax;
mod transactions;

/// One command's documentation.
pub(crate) struct Doc {
    /// As in its row.
    pub name: &'static str,
    /// The first version of Redis (or Valkey, for 8.1 and 9.0) that has it.
    pub since: &'static str,
    /// The time it takes; empty where that cannot be said in short.
    pub complexity: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// Hints for clients that spread requests over several servers.
    pub tips: &'static [&'static str],
    /// Since when it should not be used, and what should.
    pub deprecated: Option<(&'static str, &'static str)>,
    /// More about its keys, by the number of their specification.
    pub notes: &'static [(usize, &'static str)],
    /// Whether it is for the server's own use or its tests.
    pub system: bool,
}

const fn doc(
    name: &'static str,
    since: &'static str,
    complexity: &'static str,
    summary: &'static str,
) -> Doc {
    Doc { name, since, complexity, summary, tips: &[], deprecated: None, notes: &[], system: false }
}

impl Doc {
    const fn tips(self, tips: &'static [&'static str]) -> Doc {
        Doc { tips, ..self }
    }

    const fn deprecated(self, since: &'static str, replaced_by: &'static str) -> Doc {
        Doc { deprecated: Some((since, replaced_by)), ..self }
    }

    const fn notes(self, notes: &'static [(usize, &'static str)]) -> Doc {
        Doc { notes, ..self }
    }

    const fn system(self) -> Doc {
        Doc { system: true, ..self }
    }
}

const GROUPS: &[(&str, &[Doc])] = &[
    ("bitmap", bitmap::DOCS),
    ("cairn", cairn::DOCS),
    ("cluster", cluster::DOCS),
    ("connection", connection::DOCS),
    ("generic", generic::DOCS),
    ("geo", geo::DOCS),
    ("hash", hash::DOCS),
    ("hyperloglog", hyperloglog::DOCS),
    ("list", list::DOCS),
    ("pubsub", pubsub::DOCS),
    ("scripting", scripting::DOCS),
    ("server", server::DOCS),
    ("set", set::DOCS),
    ("sorted-set", sorted_set::DOCS),
    ("stream", stream::DOCS),
    ("string", string::DOCS),
    ("transactions", transactions::DOCS),
];

/// The group and the documentation of a command.
pub(crate) fn of(name: &str) -> Option<(&'static str, &'static Doc)> {
    GROUPS.iter().find_map(|(group, docs)| docs.iter().find(|doc| doc.name == name).map(|doc| (*group, doc)))
}

/// The arguments of a command in the notation of [`syntax`]; empty where it takes none.
pub(crate) fn arguments_of(name: &str) -> &'static str {
    arguments::LINES.iter().find(|(of, _)| *of == name).map_or("", |(_, line)| line)
}
