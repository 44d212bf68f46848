//! The house stands as drawn: which crate may use which is held here, so that an edge is a decision and never a habit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Folder, package, and the packages of ours it may use (design, section 1). Building a binary of the whole needs no edge
/// beyond these; a test dependency is an edge too.
const ALLOWED: &[(&str, &str, &[&str])] = &[
    ("engine/resp", "cairn-resp", &[]),
    ("engine/keyspace", "cairn-keyspace", &["cairn-rdb"]),
    ("engine/commands", "cairn-commands", &["cairn-keyspace", "cairn-resp"]),
    (
        "engine/core",
        "cairn-engine",
        &[
            "cairn-commands",
            "cairn-keyspace",
            "cairn-journal",
            "cairn-snapshot",
            "cairn-seal",
            "cairn-disk",
            "cairn-format",
        ],
    ),
    ("engine/server", "cairn-server", &["cairn-engine", "cairn-resp", "cairn-seal"]),
    ("storage/rdb", "cairn-rdb", &[]),
    ("storage/format", "cairn-format", &[]),
    ("storage/disk", "cairn-disk", &[]),
    ("storage/seal", "cairn-seal", &["cairn-format"]),
    ("storage/journal", "cairn-journal", &["cairn-format", "cairn-disk", "cairn-seal", "cairn-rdb"]),
    ("storage/snapshot", "cairn-snapshot", &["cairn-format", "cairn-disk", "cairn-seal", "cairn-rdb"]),
    ("backup/store", "cairn-store", &[]),
    (
        "backup/jobs",
        "cairn-jobs",
        &["cairn-store", "cairn-journal", "cairn-snapshot", "cairn-seal", "cairn-format", "cairn-disk"],
    ),
    ("backup/agent", "cairn-backup", &["cairn-jobs", "cairn-resp", "cairn-rdb", "cairn-engine"]),
    ("backup/restore", "cairn-restore", &["cairn-jobs", "cairn-resp", "cairn-rdb", "cairn-engine"]),
    ("tests", "cairn-tests", &[]),
];

/// Packages that only one of ours may name.
const ONLY_USER: &[(&str, &str)] = &[
    ("aws-sdk-s3", "cairn-store"),
    ("aws-config", "cairn-store"),
    ("memmap2", "cairn-disk"),
    ("aes-gcm", "cairn-seal"),
];

fn root() -> &'static Path {
    cairn_tests::programs::repository()
}

/// The package name and every dependency named in a manifest, whatever the kind and the target.
fn manifest(folder: &str) -> (String, BTreeSet<String>) {
    let path = root().join(folder).join("Cargo.toml");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (mut name, mut dependencies, mut section) = (String::new(), BTreeSet::new(), String::new());
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(['[', ']']).to_owned();
            if let Some((_, package)) = section.split_once("dependencies.") {
                dependencies.insert(package.to_owned());
            }
        } else if let Some((key, value)) = line.split_once('=') {
            let key = key.trim().trim_matches('"');
            if section == "package" && key == "name" {
                name = value.trim().trim_matches('"').to_owned();
            }
            if section.ends_with("dependencies") {
                assert!(!value.contains("package"), "{folder}: {key} is renamed; name the package itself");
                let package = key.split('.').next().unwrap_or(key);
                assert!(
                    value.contains("workspace") || value.trim() == "true",
                    "{folder}: {key} has a version of its own"
                );
                dependencies.insert(package.to_owned());
            }
        }
    }
    assert!(!name.is_empty(), "{} names no package", path.display());
    (name, dependencies)
}

#[test]
fn every_crate_uses_only_what_it_may() {
    let packages: BTreeSet<&str> = ALLOWED.iter().map(|(_, package, _)| *package).collect();
    for (folder, package, allowed) in ALLOWED {
        let (name, dependencies) = manifest(folder);
        assert_eq!(&name, package, "the package in {folder}");
        for dependency in dependencies.iter().filter(|name| packages.contains(name.as_str())) {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{package} must not use {dependency}; see the design, section 1"
            );
        }
        for (library, user) in ONLY_USER {
            assert!(
                !dependencies.contains(*library) || package == user,
                "only {user} uses {library}, not {package}"
            );
        }
    }
}

#[test]
fn the_workspace_holds_exactly_the_crates_of_the_design() {
    let text = fs::read_to_string(root().join("Cargo.toml")).expect("the root manifest can be read");
    let members = text
        .split_once("members = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .expect("a list of members")
        .0;
    let members: BTreeSet<&str> =
        members.split(',').map(|entry| entry.trim().trim_matches('"')).filter(|m| !m.is_empty()).collect();
    let designed: BTreeSet<&str> = ALLOWED.iter().map(|(folder, ..)| *folder).collect();
    assert_eq!(members, designed);
}

/// What a package links in the end, by cargo's own account.
fn linked(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "-e",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "-p",
            package,
        ])
        .current_dir(root())
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn the_server_does_not_link_the_aws_sdk() {
    for package in ["cairn-server", "cairn-engine"] {
        let found: Vec<_> = linked(package).into_iter().filter(|name| name.starts_with("aws-")).collect();
        assert!(found.is_empty(), "{package} links {found:?}");
    }
    // The same question has the other answer where the SDK belongs, so it is asked rightly.
    assert!(linked("cairn-backup").contains("aws-sdk-s3"));
}

/// What must stay free of I/O and of tokio (design, section 1).
#[test]
fn codecs_and_keyspace_know_no_runtime() {
    for package in
        ["cairn-resp", "cairn-keyspace", "cairn-commands", "cairn-rdb", "cairn-format", "cairn-seal"]
    {
        assert!(!linked(package).contains("tokio"), "{package} links tokio");
    }
}

#[test]
fn each_library_says_what_it_is_for() {
    let mut silent = BTreeMap::new();
    for (folder, package, _) in ALLOWED {
        let path = root().join(folder).join("src/lib.rs");
        if let Ok(text) = fs::read_to_string(&path) {
            let opening: Vec<_> = text.lines().take_while(|line| line.starts_with("//!")).collect();
            if opening.len() < 3 || !opening.iter().any(|line| line.contains("never")) {
                silent.insert(*package, opening.len());
            }
        }
    }
    assert!(
        silent.is_empty(),
        "lib.rs opens with purpose, invariants and what the crate must never know: {silent:?}"
    );
}
