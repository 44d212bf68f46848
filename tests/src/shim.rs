//! The preloaded shim `tests/shim/withhold.c`: a power cut and a full disk for any program, without root.

use crate::programs;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A compiled shim with the image and the marks of one data directory.
#[derive(Debug)]
pub struct Shim {
    dir: PathBuf,
    home: tempfile::TempDir,
}

impl Shim {
    /// Compiles the shim and prepares an image for the data directory `dir`, which is made if missing.
    #[track_caller]
    pub fn new(dir: &Path) -> Self {
        // Beside the data, so that the image becomes the data by a rename.
        let parent = dir.parent().expect("a data directory has a parent");
        let home = tempfile::Builder::new().prefix("shim").tempdir_in(parent).expect("a temporary directory");
        let source = programs::repository().join("tests/shim/withhold.c");
        let output = Command::new("cc")
            .args(["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
            .arg(home.path().join("withhold.so"))
            .arg(source)
            .arg("-lpthread")
            .output()
            .unwrap_or_else(|error| panic!("cc does not start: {error}; a C compiler is needed"));
        assert!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
        let shim = Self { dir: dir.to_owned(), home };
        fs::create_dir_all(dir).expect("the data directory can be made");
        fs::create_dir_all(shim.image()).expect("the image's directory can be made");
        fs::create_dir_all(shim.control()).expect("the control directory can be made");
        shim
    }

    /// The environment that loads the shim with an image: what is not synced is lost, except that each block reaches
    /// the image early with `writeback` per cent.
    pub fn power_cut(&self, writeback: u8, seed: u64) -> Vec<(&'static str, String)> {
        let mut env = self.preload();
        env.push(("CAIRN_SHIM_IMAGE", text(&self.image())));
        env.push(("CAIRN_SHIM_WRITEBACK", writeback.to_string()));
        env.push(("CAIRN_SHIM_SEED", seed.to_string()));
        env
    }

    /// The environment that loads the shim to fail allocations: after `bytes` when given, and while
    /// [`Shim::mark`]`("disk-full")` stands.
    pub fn full_disk(&self, bytes: Option<u64>) -> Vec<(&'static str, String)> {
        let mut env = self.preload();
        env.extend(bytes.map(|bytes| ("CAIRN_SHIM_ENOSPC_AFTER", bytes.to_string())));
        env
    }

    fn preload(&self) -> Vec<(&'static str, String)> {
        vec![
            ("LD_PRELOAD", text(&self.home.path().join("withhold.so"))),
            ("CAIRN_SHIM_DIR", text(&self.dir)),
            ("CAIRN_SHIM_CONTROL", text(&self.control())),
        ]
    }

    fn image(&self) -> PathBuf {
        self.home.path().join("image")
    }

    fn control(&self) -> PathBuf {
        self.home.path().join("control")
    }

    /// Sets the mark `ignore-sync`, `hang-sync`, `fail-sync`, `fail-sync-once`, `fail-fork` or `disk-full`; the running program heeds it at once.
    pub fn mark(&self, name: &str) {
        fs::write(self.control().join(name), b"").expect("a mark can be set");
    }

    /// Takes the mark away.
    pub fn unmark(&self, name: &str) {
        fs::remove_file(self.control().join(name)).expect("a mark can be removed");
    }

    /// After the program was killed: the data directory becomes what the disk would hold.
    pub fn cut(&self) {
        fs::remove_dir_all(&self.dir).expect("the data directory can be removed");
        fs::rename(self.image().join("names"), &self.dir).expect("the image can take its place");
        fs::remove_dir_all(self.image()).expect("the image can be removed");
        fs::create_dir(self.image()).expect("the image can be made anew");
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("test paths are UTF-8").to_owned()
}
