//! Finding the programs under test and running the ones that end by themselves.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// No single call of a tool in a test takes longer.
const LIMIT: Duration = Duration::from_secs(240);

/// The top of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository")
}

/// The path of one of our programs; its absence fails the test.
pub fn cairn(name: &str) -> PathBuf {
    let directory = match std::env::var_os("CAIRN_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => {
            let own = std::env::current_exe().expect("the test knows its own executable");
            let parent = own.parent().expect("an executable lies in a directory");
            if parent.ends_with("deps") {
                parent.parent().unwrap_or(parent).to_owned()
            } else {
                parent.to_owned()
            }
        }
    };
    let path = directory.join(name);
    assert!(
        path.is_file(),
        "{} is not built: run `cargo build -p {name}` first (or `make test`, which does), or set CAIRN_BIN_DIR",
        path.display()
    );
    path
}

/// The path of a program that setup.sh installs into `.deps/bin`.
pub fn dependency(name: &str) -> PathBuf {
    let path = repository().join(".deps/bin").join(name);
    assert!(path.is_file(), "{} is missing: run tests/scripts/setup.sh", path.display());
    path
}

/// The path of a program of the system; `make test` installs it.
pub fn system(name: &str) -> PathBuf {
    let found = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path)
            .map(|directory| directory.join(name))
            .find(|candidate| candidate.is_file())
    });
    found.unwrap_or_else(|| panic!("{name} is not installed: run tests/scripts/setup.sh"))
}

/// The server that stands beside ours: `PEER` where it is set (a valkey-server, say), else Debian's redis-server.
pub fn peer() -> PathBuf {
    match std::env::var_os("PEER") {
        Some(path) if !path.is_empty() => {
            let path = PathBuf::from(path);
            assert!(path.is_file(), "PEER: {} is no file", path.display());
            path
        }
        _ => system("redis-server"),
    }
}

/// What a tool left behind.
#[derive(Debug)]
pub struct Done {
    /// The command line, for messages.
    pub line: String,
    /// The exit code; 128 and the signal's number when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The most memory of its own seen while it ran, mapped files left out, in KiB.
    pub peak_kib: u64,
}

impl Done {
    /// Fails unless the exit code is `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code of `{}`\n{}", self.line, self.output());
        self
    }

    /// Fails unless what it said holds each of `words`, whatever their case.
    #[track_caller]
    pub fn saying(self, words: &[&str]) -> Self {
        let output = self.output().to_lowercase();
        for word in words {
            assert!(output.contains(&word.to_lowercase()), "`{}` should say {word:?}:\n{output}", self.line);
        }
        self
    }

    /// The last line of standard output as JSON: with `--json` the result comes last.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        let last = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last)
            .unwrap_or_else(|error| panic!("`{}` gave no JSON ({error}): {last:?}", self.line))
    }

    /// Standard output and standard error together.
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// A call of a program that ends by itself.
#[derive(Clone, Debug)]
pub struct Tool {
    program: PathBuf,
    args: Vec<String>,
    env: BTreeMap<String, String>,
}

impl Tool {
    /// A call of `program`.
    pub fn new(program: PathBuf) -> Self {
        Self { program, args: Vec::new(), env: BTreeMap::new() }
    }

    /// `cairn-backup`.
    pub fn backup() -> Self {
        Self::new(cairn("cairn-backup"))
    }

    /// `cairn-restore`.
    pub fn restore() -> Self {
        Self::new(cairn("cairn-restore"))
    }

    /// One more argument.
    pub fn arg(mut self, value: impl AsRef<OsStr>) -> Self {
        self.args.push(value.as_ref().to_str().expect("test arguments are UTF-8").to_owned());
        self
    }

    /// An option with its value.
    pub fn option(self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.arg(name).arg(value)
    }

    /// Environment variables beside the inherited ones.
    pub fn env<'a>(mut self, pairs: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        self.env.extend(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)));
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(&self) -> Done {
        let line = format!("{} {}", self.program.display(), self.args.join(" "));
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .envs(&self.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|error| panic!("`{line}` does not start: {error}"));
        let pid = child.id();
        let (sender, receiver) = mpsc::channel();
        let waiter = thread::spawn(move || sender.send(child.wait_with_output()));
        let (mut peak_kib, end) = (0, Instant::now() + LIMIT);
        let result = loop {
            match receiver.recv_timeout(Duration::from_millis(5)) {
                Ok(result) => break result,
                Err(_) if Instant::now() < end => peak_kib = own_memory_kib(pid).unwrap_or(0).max(peak_kib),
                Err(_) => {
                    crate::signal::send(pid, crate::signal::Signal::Terminate);
                    panic!("`{line}` still runs after {LIMIT:?}");
                }
            }
        };
        let _ = waiter.join();
        let output = result.unwrap_or_else(|error| panic!("`{line}`: {error}"));
        Done {
            line,
            code: exit_code(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            peak_kib,
        }
    }
}

/// The resident memory of a process that no file backs.
fn own_memory_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The exit code as a shell shows it.
pub fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Makes a keyring at `path`, as a person would.
pub fn generate_keyring(path: &Path) {
    Tool::backup().arg("key").arg("generate").option("--out", path).run().expect(0);
    assert!(path.is_file(), "`cairn-backup key generate` left no {}", path.display());
}
