//! Backups and restores beside a raw transfer of the same bytes.

use crate::bench::{Bench, Persist, order, seconds};
use crate::load;
use crate::snapshots::bgsave;
use crate::table::{Row, Samples, Target};
use cairn_tests::files;
use cairn_tests::minio::{self, Minio};
use cairn_tests::programs::{Tool, cairn};
use cairn_tests::server::Kind;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

const GROUP: &str = "backup";
const TARGET: Target = Target::RatioAtLeast(0.8);

/// A data directory at rest, and the bytes a backup of it consists of.
struct Source {
    dir: PathBuf,
    /// The objects of one backup, as files: what the raw transfer moves.
    objects: PathBuf,
    megabytes: f64,
}

pub(crate) fn backup(bench: &mut Bench) {
    let source = prepare(bench);
    directory(bench, &source);
    let minio = Minio::start();
    object_store(bench, &source, &minio);
    bench.remove(GROUP);
}

fn prepare(bench: &Bench) -> Source {
    let setup = bench.setup(Kind::Cairn, GROUP, Persist::EverySec);
    let server = setup.start();
    load::standard(&server, bench.settings.keys);
    bgsave(&server);
    server.stop();
    let objects = bench.path("backup-first");
    create(bench, setup.dir(), &url(&objects), Vec::new());
    let bytes: u64 =
        files::all(&objects).iter().filter_map(|path| fs::metadata(path).ok()).map(|data| data.len()).sum();
    Source { dir: setup.dir().to_owned(), objects, megabytes: bytes as f64 / 1e6 }
}

fn url(directory: &Path) -> String {
    format!("file://{}", directory.display())
}

fn create(bench: &Bench, dir: &Path, url: &str, env: Vec<(&'static str, String)>) {
    let tool = Tool::backup().option("--repo", url).arg("create").option("--dir", dir).env(env);
    tool.option("--encryption-key-file", bench.keyring()).run().expect(0);
}

fn restore(bench: &Bench, dir: &Path, url: &str, env: Vec<(&'static str, String)>) {
    let tool = Tool::restore().option("--repo", url).option("--dir", dir).env(env);
    tool.option("--encryption-key-file", bench.keyring()).run().expect(0);
}

/// Copies a tree as plainly as can be, each file synced.
fn copy(from: &Path, to: &Path) {
    for path in files::all(from) {
        let target = to.join(path.strip_prefix(from).expect("a file of the tree"));
        fs::create_dir_all(target.parent().expect("a file has a directory")).expect("a directory");
        fs::copy(&path, &target).expect("a copy");
        fs::File::open(&target).and_then(|file| file.sync_all()).expect("a sync");
    }
}

/// The rates of a pair of works by turns, in MB/s: the raw transfer in the peer's place.
fn rates(bench: &Bench, megabytes: f64, mut raw: impl FnMut(usize), mut ours: impl FnMut(usize)) -> Samples {
    let mut samples = Samples::default();
    for round in 0..bench.settings.rounds {
        for kind in order(round) {
            let time = match kind {
                Kind::Redis => seconds(|| raw(round)),
                Kind::Cairn => seconds(|| ours(round)),
            };
            samples.add(kind, megabytes / time);
        }
    }
    samples
}

fn directory(bench: &mut Bench, source: &Source) {
    let place = |name: &str, round: usize| bench.path(&format!("backup-{name}-{round}"));
    let created = rates(
        bench,
        source.megabytes,
        |round| copy(&source.objects, &place("raw", round)),
        |round| create(bench, &source.dir, &url(&place("repository", round)), Vec::new()),
    );
    let restored = rates(
        bench,
        source.megabytes,
        |round| copy(&place("raw", round), &place("raw-back", round)),
        |round| restore(bench, &place("restored", round), &url(&place("repository", round)), Vec::new()),
    );
    for name in ["raw", "raw-back", "repository", "restored"] {
        for round in 0..bench.settings.rounds {
            fs::remove_dir_all(place(name, round)).expect("a copy can be removed");
        }
    }
    let row = |what: &str, samples| {
        let work = format!(
            "{what} of {:.0} MB, file:// (beside it a copy of the same bytes, synced)",
            source.megabytes
        );
        Row::new(GROUP, work, "MB/s", samples).target(TARGET)
    };
    bench.report.row(row("backup", created));
    bench.report.row(row("restore", restored));
}

/// The objects as one file: the raw transfer is not to pay for small objects.
fn joined(bench: &Bench, source: &Source) -> PathBuf {
    let path = bench.path("backup-joined");
    let mut file = fs::File::create(&path).expect("a file");
    for object in files::all(&source.objects) {
        file.write_all(&fs::read(object).expect("an object")).expect("room for a copy");
    }
    path
}

fn object_store(bench: &mut Bench, source: &Source, minio: &Minio) {
    let file = joined(bench, source);
    let raw = |verb: &str, key: &str, path: &Path| {
        let tool = Tool::new(cairn("examples/raw_transfer")).arg(verb).arg(minio::BUCKET).arg(key).arg(path);
        tool.env(minio.env()).run().expect(0);
    };
    let repository = |round: usize| minio.url(&format!("repository-{round}"));
    let restored = |round: usize| bench.path(&format!("backup-s3-{round}"));
    let up = rates(
        bench,
        source.megabytes,
        |round| raw("put", &format!("raw-{round}"), &file),
        |round| create(bench, &source.dir, &repository(round), minio.env()),
    );
    let down = rates(
        bench,
        source.megabytes,
        |round| raw("get", &format!("raw-{round}"), &bench.path("backup-raw-got")),
        |round| restore(bench, &restored(round), &repository(round), minio.env()),
    );
    for round in 0..bench.settings.rounds {
        fs::remove_dir_all(restored(round)).expect("a copy can be removed");
    }
    let row = |what: &str, samples| {
        let work = format!(
            "{what} of {:.0} MB, MinIO (beside it a raw transfer of the same bytes)",
            source.megabytes
        );
        Row::new(GROUP, work, "MB/s", samples).target(TARGET)
    };
    bench.report.row(row("backup", up));
    bench.report.row(row("restore", down));
}
