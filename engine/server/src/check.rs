//! `cairn-server --check DIR`: what is there, whether it is whole, what recovery would give; starts nothing.

use crate::{Failure, config, host, keyring};
use cairn_engine::{Checked, check};
use serde_json::json;
use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

const USAGE: &str = "usage: cairn-server --check DIR [--digest] [--json] [--directive value]...";

/// Checks the directory that the arguments behind `--check` name and prints what is there.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let Some((dir, rest)) = args.split_first().filter(|(dir, _)| !dir.starts_with("--")) else {
        return Err(Failure::new(2, format!("--check needs the data directory to look at; {USAGE}")));
    };
    let is_ours = |arg: &&String| matches!(arg.as_str(), "--digest" | "--json");
    let (ours, directives): (Vec<&String>, Vec<&String>) = rest.iter().partition(is_ours);
    let mut directives: Vec<String> = directives.into_iter().cloned().collect();
    directives.extend(["--dir".to_owned(), dir.clone()]);
    let (settings, _) = config::load(&directives).map_err(|error| Failure::new(2, error))?;
    if !Path::new(dir).is_dir() {
        return Err(Failure::new(1, format!("{dir}: there is no such directory")));
    }
    let has = |name: &str| ours.iter().any(|arg| *arg == name);
    let options = host::options(&settings, keyring(&settings)?);
    let began = Instant::now();
    let checked = check(&options, has("--digest"))
        .map_err(|error| Failure::new(u8::try_from(error.exit_code()).unwrap_or(1), error))?;
    let elapsed_ms = began.elapsed().as_millis();
    if has("--json") {
        println!("{}", document(dir, &checked, elapsed_ms));
    } else {
        print!("{}", report(dir, &checked, elapsed_ms));
    }
    Ok(())
}

fn document(dir: &str, checked: &Checked, elapsed_ms: u128) -> serde_json::Value {
    let recovery = &checked.recovery;
    let files: Vec<_> = checked
        .files
        .iter()
        .map(|file| json!({ "name": file.name, "bytes": file.bytes, "lsn": file.lsn }))
        .collect();
    let cut = recovery.cut.as_ref().map(|cut| {
        json!({
            "file": cut.file.display().to_string(), "offset": cut.offset, "bytes": cut.bytes,
            "from_lsn": cut.from.0, "to_lsn": cut.to.0,
        })
    });
    json!({
        "dir": dir,
        "whole": true,
        "empty": recovery.fresh,
        "lineage": checked.lineage,
        "encrypted": checked.encrypted,
        "files": files,
        "leftovers": checked.leftovers,
        "snapshot_lsn": recovery.snapshot_lsn.0,
        "snapshot_keys": recovery.snapshot_entries,
        "journal_effects": recovery.replayed,
        "end_lsn": recovery.end.0,
        "cut": cut,
        "keys": checked.keys,
        "digest": checked.digest,
        "elapsed_ms": elapsed_ms,
    })
}

fn report(dir: &str, checked: &Checked, elapsed_ms: u128) -> String {
    let mut out = String::new();
    let recovery = &checked.recovery;
    // Writing into a String does not fail.
    let mut line = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    let Some(lineage) = &checked.lineage else {
        line(format!("{dir}: no data; a server would start empty here"));
        return out;
    };
    let seal = if checked.encrypted { "encrypted" } else { "not encrypted" };
    line(format!("{dir}: whole, {seal}, lineage {lineage}"));
    for file in &checked.files {
        line(format!("  {}  {} bytes, LSN {}", file.name, file.bytes, file.lsn));
    }
    for name in &checked.leftovers {
        line(format!("  {name}  a leftover of an interrupted step; the next start removes it"));
    }
    line(format!(
        "recovery: {} keys from the snapshot, {} effects from the journal up to LSN {}",
        recovery.snapshot_entries, recovery.replayed, recovery.end
    ));
    if let Some(cut) = &recovery.cut {
        line(format!(
            "  {}: offset {}: {} unfinished bytes behind LSN {} would be cut; none of them was acknowledged as durable",
            cut.file.display(),
            cut.offset,
            cut.bytes,
            cut.from
        ));
    }
    line(format!("keys: {}", checked.keys));
    if let Some(digest) = &checked.digest {
        line(format!("digest: {digest}"));
    }
    line(format!("read in {elapsed_ms} ms"));
    out
}
