//! Recipes people copy work through two languages' own clients, in both versions of the protocol. The recipes themselves are
//! right: redis-server passes them too.

use cairn_tests::programs::{self, Tool};
use cairn_tests::server::{Server, Setup};

/// A client library, and the file with its recipes.
#[derive(Clone, Copy)]
enum Language {
    Python,
    Node,
}

impl Language {
    fn tool(self) -> Tool {
        let repository = programs::repository();
        match self {
            Language::Python => {
                let python = repository.join(".deps/venv/bin/python");
                assert!(python.is_file(), "{} is missing: run tests/scripts/setup.sh", python.display());
                Tool::new(python).arg(repository.join("tests/python/recipes.py"))
            }
            Language::Node => {
                let modules = repository.join(".deps/node/node_modules");
                assert!(modules.is_dir(), "{} is missing: run tests/scripts/setup.sh", modules.display());
                Tool::new(programs::system("node"))
                    .arg(repository.join("tests/node/recipes.mjs"))
                    .env([("NODE_PATH", modules.display().to_string())])
            }
        }
    }

    fn follow(self, recipe: &str, server: &Server) {
        for protocol in ["2", "3"] {
            self.tool().arg(server.address().port().to_string()).arg(protocol).arg(recipe).run().expect(0);
        }
    }
}

/// Against a server that syncs every write, and against Redis.
fn holds(language: Language, recipe: &str) {
    let home = tempfile::tempdir().expect("a temporary directory");
    language.follow(recipe, &Setup::redis(&home.path().join("redis")).start());
    let server = Setup::cairn(&home.path().join("cairn")).journal("always").start();
    language.follow(recipe, &server);
    server.stop();
}

/// A test for each recipe in each language.
macro_rules! recipes {
    ($($recipe:ident)*) => {
        mod python {
            $(#[test] fn $recipe() { super::holds(super::Language::Python, stringify!($recipe)) })*
        }
        mod node {
            $(#[test] fn $recipe() { super::holds(super::Language::Node, stringify!($recipe)) })*
        }
    };
}

recipes! { pipelines leaderboard sessions streams locks rate_limiter pub_sub client_side_caching }
