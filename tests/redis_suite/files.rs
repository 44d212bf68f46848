//! The files of the suite, and a copy of it for one run.

use crate::lists::Row;
use crate::settings::{Mode, Settings};
use cairn_tests::programs;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// The folders of tests in each mode.
fn folders(mode: Mode) -> &'static [&'static str] {
    match mode {
        Mode::External => &["unit", "unit/type"],
        Mode::Own => &["unit", "unit/type", "unit/cluster", "integration"],
    }
}

/// The files to run, as the runner names them.
pub(crate) fn to_run(settings: &Settings, left_out: &[Row]) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for folder in folders(settings.mode) {
        let path = settings.sources.join("tests").join(folder);
        let entries = fs::read_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        for entry in entries {
            let name = entry.map_err(|error| format!("{}: {error}", path.display()))?.file_name();
            // A file that others include holds no test of its own.
            if let Some(stem) =
                name.to_string_lossy().strip_suffix(".tcl").filter(|stem| *stem != "list-common")
            {
                all.push(format!("{folder}/{stem}"));
            }
        }
    }
    all.sort();
    if let Some(unknown) = settings.only.iter().find(|name| !all.contains(name)) {
        return Err(format!("FILES: there is no {unknown:?}; there are {}", all.join(" ")));
    }
    let whole = |unit: &str| {
        left_out.iter().any(|row| row.is_for(settings.mode) && row.file == unit && row.test == "*")
    };
    all.retain(|unit| !whole(unit) && (settings.only.is_empty() || settings.only.contains(unit)));
    Ok(all)
}

/// Lays out a working copy: the tests, and in `src/` the programs they call.
pub(crate) fn lay_out(settings: &Settings, left_out: &[Row], home: &Path) -> io::Result<()> {
    copy(&settings.sources.join("tests"), &home.join("tests"))?;
    for row in left_out.iter().filter(|row| row.is_for(settings.mode)) {
        if let Some(line) = row.line() {
            without_line(&home.join(format!("tests/{}.tcl", row.file)), line)?;
        }
    }
    let bin = home.join("src");
    fs::create_dir_all(&bin)?;
    for name in ["redis-cli", "redis-benchmark"] {
        symlink(programs::system(name), bin.join(name))?;
    }
    match (settings.mode, &settings.peer) {
        (Mode::Own, None) => wrapper(settings, left_out, &bin.join("redis-server")),
        (Mode::Own, Some(peer)) => symlink(peer, bin.join("redis-server")),
        (Mode::External, _) => symlink(programs::system("redis-server"), bin.join("redis-server")),
    }
}

/// Takes out of a file what cannot be left out by the name of a test, since it stands outside any.
fn without_line(path: &Path, line: &str) -> io::Result<()> {
    let text = fs::read_to_string(path)?;
    let kept: Vec<&str> = text.lines().filter(|other| other.trim() != line).collect();
    fs::write(path, kept.join("\n") + "\n")
}

/// A script in redis-server's place. It takes out the directives that are left out, lets one thread serve all, since tests
/// send by one connection after the other and expect to be served in that order, listens where Redis does without `bind`,
/// says the process id as Redis does, and becomes `cairn-server`.
fn wrapper(settings: &Settings, left_out: &[Row], path: &Path) -> io::Result<()> {
    let directives: Vec<&str> =
        left_out.iter().filter(|row| row.file == "directive").map(|row| row.test.as_str()).collect();
    let script = format!(
        "#!/bin/sh\n\
         if [ -f \"$1\" ]; then\n\
         \x20   sed -i -E '/^({}|server-threads) /Id' \"$1\"\n\
         \x20   echo 'server-threads 1' >> \"$1\"\n\
         \x20   grep -qi '^bind ' \"$1\" || echo 'bind * -::*' >> \"$1\"\n\
         \x20   echo \" PID: $$\"\n\
         fi\n\
         exec '{}' \"$@\"\n",
        directives.join("|"),
        settings.server().display()
    );
    fs::write(path, script)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&source, &target)?;
        } else {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}
